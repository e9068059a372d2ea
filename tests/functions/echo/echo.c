// Echo function for tests and benchmarks: HTTP/1.1 with keep-alive on a Unix socket, by Fn's http-stream contract.
//
// Answers every request with 200 and the request's own body ("hello\n" when it is empty) and Content-Type. Request headers,
// each also with the prefix Fn-Http-H-:
//   X-Sleep-Ms: N   the answer leaves N ms later; other connections are served meanwhile
//   X-Status: N     Fn-Http-Status of the answer (200)
// Single-threaded on epoll. A body is held in memory until it is answered, whatever its size. Leaves on SIGTERM at once.

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_BUFFER = 16 << 10, KEPT_BUFFER = 1 << 20, MAX_HEAD = 1 << 20, MAX_EVENTS = 256 };

struct text {
    const char *start;
    size_t length;
};

// One request of a connection.
struct request {
    size_t head_length;     // request line and headers with the empty line
    size_t body_length;     // after a chunked body has been joined
    size_t total_length;    // head and body as they came in
    bool chunked, close;
    size_t type_offset, type_length; // of the Content-Type in the buffer, which may move while the body comes in
    long sleep_ms, status;
};

struct connection {
    int fd;
    char *buffer;           // what has been read and not been answered yet
    size_t used, size;
    size_t searched;        // bytes known not to contain the end of the head
    struct request request; // valid from the end of its head until it is answered
    bool has_head;
    char head[512];         // of the answer
    struct iovec answer[2]; // what is left of it to write: head, body
    bool answering;
    long long wake_ms;      // time to answer at, on the monotonic clock; 0: not asleep
    struct connection *next_sleeper;
};

static int poller;
static struct connection *sleepers;

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void watch(struct connection *connection, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    epoll_ctl(poller, operation, connection->fd, &event);
}

static void forget_sleeper(struct connection *connection) {
    for (struct connection **link = &sleepers; *link; link = &(*link)->next_sleeper)
        if (*link == connection) {
            *link = connection->next_sleeper;
            return;
        }
}

static void close_connection(struct connection *connection) {
    forget_sleeper(connection);
    close(connection->fd);
    free(connection->buffer);
    free(connection);
}

// Makes the buffer hold `wanted` bytes.
static void reserve(struct connection *connection, size_t wanted) {
    if (connection->size >= wanted)
        return;
    connection->buffer = realloc(connection->buffer, wanted);
    connection->size = wanted;
    if (!connection->buffer) {
        perror("echo");
        _exit(1);
    }
}

// The name of a header as the caller sent it.
static struct text without_prefix(struct text name) {
    static const char prefix[] = "Fn-Http-H-";
    size_t length = sizeof prefix - 1;
    if (name.length > length && !strncasecmp(name.start, prefix, length))
        return (struct text){name.start + length, name.length - length};
    return name;
}

#define IS_NAMED(name, wanted) (name.length == sizeof wanted - 1 && !strncasecmp(name.start, wanted, sizeof wanted - 1))

static void note_header(struct connection *connection, struct text name, const char *value, size_t length) {
    struct request *request = &connection->request;
    if (IS_NAMED(name, "Content-Length"))
        request->body_length = strtoul(value, NULL, 10);
    else if (IS_NAMED(name, "Content-Type"))
        request->type_offset = value - connection->buffer, request->type_length = length;
    else if (IS_NAMED(name, "Transfer-Encoding"))
        request->chunked = length >= 7 && !strncasecmp(value + length - 7, "chunked", 7);
    else if (IS_NAMED(name, "Connection"))
        request->close = length == 5 && !strncasecmp(value, "close", 5);
    else if (IS_NAMED(name, "X-Sleep-Ms"))
        request->sleep_ms = strtol(value, NULL, 10);
    else if (IS_NAMED(name, "X-Status"))
        request->status = strtol(value, NULL, 10);
}

// Reads the headers of a head that is complete.
static void parse_head(struct connection *connection, size_t head_length) {
    struct request *request = &connection->request;
    *request = (struct request){.head_length = head_length, .status = 200};
    const char *line = memchr(connection->buffer, '\n', head_length) + 1;
    const char *end = connection->buffer + head_length - 2;
    while (line < end) {
        const char *line_end = memchr(line, '\r', end - line + 1);
        const char *colon = memchr(line, ':', line_end - line);
        if (colon) {
            const char *value = colon + 1;
            while (*value == ' ')
                value++;
            note_header(connection, without_prefix((struct text){line, colon - line}), value, line_end - value);
        }
        line = line_end + 2;
    }
    request->total_length = head_length + request->body_length;
    connection->has_head = true;
}

// Joins a chunked body in place once all of it is there; trailers are not supported.
static bool join_chunks(struct connection *connection) {
    struct request *request = &connection->request;
    char *body = connection->buffer + request->head_length, *end = connection->buffer + connection->used;
    // First whether it is complete, and then the moves: a body that arrives in many reads is joined once.
    for (int pass = 0; pass < 2; pass++) {
        char *chunk = body, *joined = body;
        for (;;) {
            char *line_end = memmem(chunk, end - chunk, "\r\n", 2);
            if (!line_end)
                return false;
            size_t size = strtoul(chunk, NULL, 16);
            char *data = line_end + 2;
            if ((size_t)(end - data) < size + 2)
                return false;
            if (pass == 1)
                memmove(joined, data, size);
            joined += size;
            chunk = data + size + 2;
            if (size == 0)
                break;
        }
        request->body_length = joined - body;
        request->total_length = chunk - connection->buffer;
    }
    return true;
}

// Whether the buffer begins with a whole request, which is then in connection->request.
static bool has_request(struct connection *connection) {
    if (!connection->has_head) {
        size_t from = connection->searched < 3 ? 0 : connection->searched - 3;
        char *end = memmem(connection->buffer + from, connection->used - from, "\r\n\r\n", 4);
        connection->searched = connection->used;
        if (!end)
            return false;
        parse_head(connection, end + 4 - connection->buffer);
    }
    if (connection->request.chunked)
        return join_chunks(connection);
    return connection->used >= connection->request.total_length;
}

static void start_answer(struct connection *connection) {
    struct request *request = &connection->request;
    struct text type = {connection->buffer + request->type_offset, request->type_length};
    struct iovec body = {connection->buffer + request->head_length, request->body_length};
    if (!type.length || type.length > 256)
        type = (struct text){"text/plain", 10};
    if (!body.iov_len)
        body = (struct iovec){"hello\n", 6};
    int length = snprintf(connection->head, sizeof connection->head,
                          "HTTP/1.1 200 OK\r\nContent-Type: %.*s\r\nFn-Http-Status: %ld\r\nContent-Length: %zu\r\n%s\r\n",
                          (int)type.length, type.start, request->status, body.iov_len,
                          request->close ? "Connection: close\r\n" : "");
    connection->answer[0] = (struct iovec){connection->head, length};
    connection->answer[1] = body;
    connection->answering = true;
}

enum progress { DONE, BLOCKED, BROKEN };

static enum progress write_answer(struct connection *connection) {
    struct iovec *answer = connection->answer;
    while (answer[0].iov_len + answer[1].iov_len) {
        ssize_t written = writev(connection->fd, answer, 2);
        if (written < 0)
            return errno == EAGAIN ? BLOCKED : BROKEN;
        for (int i = 0; i < 2; i++) {
            size_t part = (size_t)written < answer[i].iov_len ? (size_t)written : answer[i].iov_len;
            answer[i].iov_base = (char *)answer[i].iov_base + part;
            answer[i].iov_len -= part;
            written -= part;
        }
    }
    return DONE;
}

// Drops the answered request from the buffer, and a buffer that one big body has left.
static void finish_answer(struct connection *connection) {
    size_t total = connection->request.total_length;
    connection->used -= total;
    if (connection->used)
        memmove(connection->buffer, connection->buffer + total, connection->used);
    connection->answering = connection->has_head = false;
    connection->searched = 0;
    if (connection->size > KEPT_BUFFER && connection->used < FIRST_BUFFER) {
        connection->buffer = realloc(connection->buffer, FIRST_BUFFER);
        connection->size = FIRST_BUFFER;
    }
}

static void fall_asleep(struct connection *connection) {
    connection->wake_ms = now_ms() + connection->request.sleep_ms;
    connection->request.sleep_ms = 0;
    connection->next_sleeper = sleepers;
    sleepers = connection;
    watch(connection, EPOLL_CTL_MOD, 0);
}

// Answers the requests that the buffer holds, as far as it goes without waiting. False: the connection is gone.
static bool serve(struct connection *connection) {
    while (connection->answering || has_request(connection)) {
        if (!connection->answering) {
            if (connection->request.sleep_ms > 0) {
                fall_asleep(connection);
                return true;
            }
            start_answer(connection);
        }
        enum progress progress = write_answer(connection);
        if (progress == BLOCKED) {
            watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
            return true;
        }
        if (progress == BROKEN || connection->request.close) {
            close_connection(connection);
            return false;
        }
        finish_answer(connection);
    }
    return true;
}

// Reads once; a second read that finds nothing would cost every small request a system call.
static void read_and_serve(struct connection *connection) {
    size_t room = connection->used + FIRST_BUFFER / 2;
    if (connection->has_head && !connection->request.chunked && room < connection->request.total_length)
        room = connection->request.total_length;
    if (connection->size < room)
        reserve(connection, connection->has_head && connection->request.chunked ? room * 2 : room);
    ssize_t got = read(connection->fd, connection->buffer + connection->used, connection->size - connection->used);
    if (got < 0 && errno == EAGAIN)
        return;
    bool is_hopeless = !connection->has_head && connection->used > MAX_HEAD;
    if (got <= 0 || is_hopeless) {
        close_connection(connection);
        return;
    }
    connection->used += got;
    serve(connection);
}

static void wake_sleepers(void) {
    long long now = now_ms();
    struct connection *due = NULL;
    for (struct connection **link = &sleepers; *link;) {
        struct connection *sleeper = *link;
        if (sleeper->wake_ms > now) {
            link = &sleeper->next_sleeper;
            continue;
        }
        *link = sleeper->next_sleeper;
        sleeper->wake_ms = 0;
        sleeper->next_sleeper = due;
        due = sleeper;
    }
    while (due) {
        struct connection *sleeper = due;
        due = due->next_sleeper;
        watch(sleeper, EPOLL_CTL_MOD, EPOLLIN);
        serve(sleeper);
    }
}

static int ms_until_next_wake(void) {
    long long now = sleepers ? now_ms() : 0, wait = -1;
    for (struct connection *sleeper = sleepers; sleeper; sleeper = sleeper->next_sleeper) {
        long long left = sleeper->wake_ms > now ? sleeper->wake_ms - now : 0;
        if (wait < 0 || left < wait)
            wait = left;
    }
    return (int)wait;
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        connection->fd = fd;
        reserve(connection, FIRST_BUFFER);
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

// Listens under another name and then links FN_LISTENER to it: whoever sees the link may connect at once.
static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    snprintf(address.sun_path, sizeof address.sun_path, "%.*sphony-%s", (int)(name - path), path, name);
    unlink(address.sun_path);
    unlink(path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
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
    signal(SIGTERM, leave); // the first process of a container ignores what it has no handler for
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_at(strncmp(where, "unix:", 5) ? where : where + 5);
    struct epoll_event event = {.events = EPOLLIN}, events[MAX_EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poller, events, MAX_EVENTS, ms_until_next_wake());
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection)
                accept_all(listener);
            else if (events[i].events & EPOLLIN)
                read_and_serve(connection);
            else if (events[i].events & (EPOLLHUP | EPOLLERR))
                close_connection(connection);
            else if (serve(connection) && !connection->answering && !connection->wake_ms)
                watch(connection, EPOLL_CTL_MOD, EPOLLIN);
        }
        if (sleepers)
            wake_sleepers();
    }
}
