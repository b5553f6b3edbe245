#ifndef UPCALL_E2E_BENCH_CONNECTION_H
#define UPCALL_E2E_BENCH_CONNECTION_H

/* What the C peers of the benches do with connections. Whatever fails ends the program. */

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../program.h"

enum { MESSAGE = 1024, BLOCK = 65536, BACKLOG = 16 };

static inline void write_all(int fd, const void* bytes, size_t length) {
  for (const char* at = bytes; length > 0;) {
    ssize_t written = write(fd, at, length);
    if (written < 0) fail("write");
    at += written;
    length -= (size_t)written;
  }
}

static inline void read_all(int fd, void* bytes, size_t length) {
  for (char* at = bytes; length > 0;) {
    ssize_t got = read(fd, at, length);
    if (got <= 0) fail("read");
    at += got;
    length -= (size_t)got;
  }
}

/* Sends back what comes, until the peer has ended. */
static inline void echo(int fd) {
  static char bytes[BLOCK];
  for (ssize_t length; (length = read(fd, bytes, sizeof(bytes))) > 0;)
    write_all(fd, bytes, (size_t)length);
}

/* Listens, prints "listening", and answers each connection in a process of its own. Does not return. */
static inline void serve_at(const struct sockaddr* address, socklen_t length, const char* name, void (*answer)(int fd)) {
  int listener = socket(address->sa_family, SOCK_STREAM, 0);
  if (listener < 0 || bind(listener, address, length) || listen(listener, BACKLOG)) fail(name);
  signal(SIGCHLD, SIG_IGN);
  puts("listening");
  fflush(stdout);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) fail("accept");
    if (fork() == 0) {
      close(listener);
      answer(fd);
      _exit(0);
    }
    close(fd);
  }
}

#endif
