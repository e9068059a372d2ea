// Bodies of any size in little memory, for tests and benchmarks: HTTP/1.1 on a Unix socket, by Fn's http-stream contract.
//
//   ?bytes=N             the answer is N bytes, byte i being i mod 251, with Content-Length
//   ?bytes=N&chunked=1   the same, chunked
//   anything else        the answer is what came in: "COUNT CRC32HEX\n", zlib's crc32 of the body, chunked or not
//
// The query is that of Fn-Http-Request-Url; without that header, of the request line. A body is read to its end before the
// answer begins. One process for each connection, blocking, which is all there is to flow control. Leaves on SIGTERM at once.

#define _GNU_SOURCE
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { PERIOD = 251, PIECE = 1023 * PERIOD, BUFFER = 128 << 10 };

static unsigned char pattern[PIECE + PERIOD]; // a piece can begin at any byte of the period
static uint32_t crc_tables[8][256];

// What has been read of the connection and not been used yet.
static struct {
    int fd;
    size_t start, end;
    char bytes[BUFFER];
} input;

struct request {
    uint64_t body_length, wanted_bytes;
    bool has_chunked_body, wants_bytes, wants_chunks, close;
};

struct sum {
    uint64_t count;
    uint32_t crc;
};

static void make_tables(void) {
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = i % PERIOD;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
        crc_tables[0][i] = crc;
    }
    for (int table = 1; table < 8; table++)
        for (int i = 0; i < 256; i++) {
            uint32_t crc = crc_tables[table - 1][i];
            crc_tables[table][i] = crc >> 8 ^ crc_tables[0][crc & 255];
        }
}

// Eight bytes a step ("slicing by 8"): one a step would be slower than the servers that are measured.
static uint32_t add_to_crc(uint32_t crc, const unsigned char *data, size_t length) {
    crc = ~crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word; // of a little-endian machine
        memcpy(&word, data, 8);
        word ^= crc;
        crc = 0;
        for (int i = 0; i < 8; i++)
            crc ^= crc_tables[7 - i][word >> 8 * i & 255];
    }
    for (; length; data++, length--)
        crc = crc >> 8 ^ crc_tables[0][(crc ^ *data) & 255];
    return ~crc;
}

static bool read_more(void) {
    if (input.start == input.end)
        input.start = input.end = 0;
    ssize_t got = read(input.fd, input.bytes + input.end, BUFFER - input.end);
    input.end += got > 0 ? got : 0;
    return got > 0;
}

// The next line, its end cut off; valid until the next read. NULL: it did not come, or it is longer than the buffer.
static char *read_line(void) {
    memmove(input.bytes, input.bytes + input.start, input.end - input.start);
    input.end -= input.start;
    input.start = 0;
    char *end;
    while (!(end = memchr(input.bytes, '\n', input.end)))
        if (input.end == BUFFER || !read_more())
            return NULL;
    input.start = end + 1 - input.bytes;
    end[end > input.bytes && end[-1] == '\r' ? -1 : 0] = 0;
    return input.bytes;
}

// The value of a parameter in the query of a URL; it goes on after its end.
static const char *parameter(const char *url, const char *name) {
    size_t length = strlen(name);
    for (const char *at = strchr(url, '?'); at; at = strchr(at, '&')) {
        at++;
        if (!strncmp(at, name, length) && at[length] == '=')
            return at + length + 1;
    }
    return NULL;
}

static void note_url(struct request *request, const char *url) {
    const char *bytes = parameter(url, "bytes"), *chunked = parameter(url, "chunked");
    request->wants_bytes = bytes != NULL;
    request->wanted_bytes = bytes ? strtoull(bytes, NULL, 10) : 0;
    request->wants_chunks = chunked && *chunked == '1';
}

static bool read_head(struct request *request) {
    *request = (struct request){0};
    char *line = read_line();
    if (!line)
        return false;
    note_url(request, line);
    while ((line = read_line()) && *line) {
        char *colon = strchr(line, ':');
        if (!colon)
            return false;
        *colon = 0;
        const char *value = colon + 1 + strspn(colon + 1, " ");
        if (!strcasecmp(line, "Content-Length"))
            request->body_length = strtoull(value, NULL, 10);
        else if (!strcasecmp(line, "Transfer-Encoding"))
            request->has_chunked_body = !strcasecmp(value, "chunked");
        else if (!strcasecmp(line, "Connection"))
            request->close = !strcasecmp(value, "close");
        else if (!strcasecmp(line, "Fn-Http-Request-Url"))
            note_url(request, value);
    }
    return line != NULL;
}

static bool read_bytes(uint64_t length, struct sum *sum) {
    while (length) {
        if (input.start == input.end && !read_more())
            return false;
        size_t here = input.end - input.start, part = here < length ? here : length;
        sum->crc = add_to_crc(sum->crc, (unsigned char *)input.bytes + input.start, part);
        sum->count += part;
        input.start += part;
        length -= part;
    }
    return true;
}

static bool read_chunks(struct sum *sum) {
    for (;;) {
        const char *line = read_line();
        if (!line)
            return false;
        uint64_t size = strtoull(line, NULL, 16);
        if (size == 0)
            break;
        if (!read_bytes(size, sum) || !read_line())
            return false;
    }
    const char *trailer;
    while ((trailer = read_line()) && *trailer)
        ;
    return trailer != NULL;
}

static bool write_all(const void *data, size_t length) {
    while (length) {
        ssize_t written = write(input.fd, data, length);
        if (written < 0)
            return false;
        data = (const char *)data + written;
        length -= written;
    }
    return true;
}

static bool write_head(const char *type, const char *framing, bool close) {
    char head[256];
    int length = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nFn-Http-Status: 200\r\n%s\r\n%s\r\n",
                          type, framing, close ? "Connection: close\r\n" : "");
    return write_all(head, length);
}

static bool answer_sum(const struct request *request, const struct sum *sum) {
    char text[64], framing[64];
    int length = snprintf(text, sizeof text, "%llu %08x\n", (unsigned long long)sum->count, sum->crc);
    snprintf(framing, sizeof framing, "Content-Length: %d", length);
    return write_head("text/plain", framing, request->close) && write_all(text, length);
}

static bool write_chunk(const void *data, size_t length) {
    char size[24];
    int digits = snprintf(size, sizeof size, "%zx\r\n", length);
    return write_all(size, digits) && write_all(data, length) && write_all("\r\n", 2);
}

static bool answer_bytes(const struct request *request) {
    char framing[64] = "Transfer-Encoding: chunked";
    if (!request->wants_chunks)
        snprintf(framing, sizeof framing, "Content-Length: %llu", (unsigned long long)request->wanted_bytes);
    if (!write_head("application/octet-stream", framing, request->close))
        return false;
    for (uint64_t at = 0, part; at < request->wanted_bytes; at += part) {
        uint64_t left = request->wanted_bytes - at;
        part = left < PIECE ? left : PIECE;
        if (!(request->wants_chunks ? write_chunk : write_all)(pattern + at % PERIOD, part))
            return false;
    }
    return !request->wants_chunks || write_all("0\r\n\r\n", 5);
}

// Call after call, until the other side hangs up or breaks the protocol.
static void serve(int fd) {
    struct request request = {0};
    input.fd = fd;
    while (!request.close && read_head(&request)) {
        struct sum sum = {0};
        if (!(request.has_chunked_body ? read_chunks(&sum) : read_bytes(request.body_length, &sum)))
            return;
        if (!(request.wants_bytes ? answer_bytes(&request) : answer_sum(&request, &sum)))
            return;
    }
}

// Listens under another name and then links FN_LISTENER to it: whoever sees the link may connect at once.
static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    snprintf(address.sun_path, sizeof address.sun_path, "%.*sphony-%s", (int)(name - path), path, name);
    unlink(address.sun_path);
    unlink(path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || chmod(address.sun_path, 0666) ||
        listen(listener, 1024) || symlink(address.sun_path + (name - path), path)) {
        perror(path);
        exit(1);
    }
    return listener;
}

static void leave(int signal_number) {
    (void)signal_number;
    _exit(0);
}

int main(void) {
    const char *where = getenv("FN_LISTENER");
    if (!where) {
        fputs("FN_LISTENER is not set\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); // nobody waits for the processes of the connections
    signal(SIGTERM, leave);   // the first process of a container ignores what it has no handler for
    make_tables();
    int listener = listen_at(strncmp(where, "unix:", 5) ? where : where + 5);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        if (fork() == 0) {
            close(listener);
            serve(fd);
            _exit(0);
        }
        close(fd);
    }
}
