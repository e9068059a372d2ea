// Format default: uses memory, MiB after MiB, until the kernel kills it. Prints what it has to standard error.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 1 << 20, REPORTED_STEPS = 16 };

int main(void) {
    for (int steps = 1;; steps++) {
        char *volatile memory = malloc(STEP); // volatile: else the compiler leaves it all out
        if (!memory) {
            fputs("malloc failed before the limit was reached\n", stderr);
            return 1;
        }
        memset(memory, 1, STEP);
        if (steps % REPORTED_STEPS == 0)
            fprintf(stderr, "using %d MiB\n", steps);
    }
}
