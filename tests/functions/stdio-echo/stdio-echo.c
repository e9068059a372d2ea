// Hot echo function over IronFunctions' `http` format: reads HTTP requests with a Content-Length from standard input and
// writes an answer with the same body to standard output, one after the other, until standard input is closed.
// Request header X-Sleep-Ms (or Header_x_sleep_ms, as a caller's header arrives) delays the answer.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LINE = 64 << 10 };

struct request {
    size_t body_length;
    long sleep_ms;
};

static int is_named(const char *line, const char *name) {
    size_t length = strlen(name);
    return !strncasecmp(line, name, length) && line[length] == ':';
}

// Reads one head. 0 at the end of the input.
static int read_head(struct request *request) {
    static char line[LINE];
    *request = (struct request){0};
    for (int count = 0; fgets(line, sizeof line, stdin); count++) {
        const char *value = strchr(line, ':');
        if (!strcmp(line, "\r\n") || !strcmp(line, "\n"))
            return count > 0;
        if (is_named(line, "Content-Length"))
            request->body_length = strtoul(value + 1, NULL, 10);
        else if (is_named(line, "X-Sleep-Ms") || is_named(line, "Header_x_sleep_ms"))
            request->sleep_ms = strtol(value + 1, NULL, 10);
    }
    return 0;
}

static void leave(int signal_number) {
    (void)signal_number;
    _exit(0);
}

int main(void) {
    struct request request;
    signal(SIGTERM, leave); // the first process of a container ignores what it has no handler for
    while (read_head(&request)) {
        char *body = malloc(request.body_length + 1);
        if (!body || fread(body, 1, request.body_length, stdin) != request.body_length) {
            fprintf(stderr, "a body of %zu bytes could not be read\n", request.body_length);
            return 1;
        }
        if (request.sleep_ms > 0)
            usleep(request.sleep_ms * 1000);
        printf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", request.body_length);
        fwrite(body, 1, request.body_length, stdout);
        free(body);
        if (fflush(stdout))
            return 1;
    }
    return 0;
}
