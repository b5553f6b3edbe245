/*
 * What a plain C program makes of a stream socket: the baseline of the bench in the guest, and the echo that every client talks
 * to.
 *
 *   peer serve <address>                echoes every connection, prints "listening"
 *   peer ping <address> <rounds>        1 KiB there and back, one at a time; prints microseconds each
 *   peer bulk <address> <bytes>         through the echo and back; prints MB/s
 *
 * An address is vsock:<port> (CID 1, loopback) or unix:<path>.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <linux/vm_sockets.h>

#include "connection.h"

union address {
  struct sockaddr any;
  struct sockaddr_vm vsock;
  struct sockaddr_un unix_path;
};

static socklen_t parse(const char* text, union address* address) {
  memset(address, 0, sizeof(*address));
  if (!strncmp(text, "vsock:", 6)) {
    address->vsock.svm_family = AF_VSOCK;
    address->vsock.svm_cid = VMADDR_CID_LOCAL;
    address->vsock.svm_port = (unsigned int)strtoul(text + 6, NULL, 10);
    return sizeof(address->vsock);
  }
  if (strncmp(text, "unix:", 5) || strlen(text + 5) >= sizeof(address->unix_path.sun_path)) {
    fprintf(stderr, "peer: address %s; allowed are vsock:<port> and unix:<path>\n", text);
    exit(2);
  }
  address->unix_path.sun_family = AF_UNIX;
  strcpy(address->unix_path.sun_path, text + 5);
  return sizeof(address->unix_path);
}

static void serve(const char* text) {
  union address address;
  serve_at(&address.any, parse(text, &address), text, echo);
}

static int dial(const char* text) {
  union address address;
  socklen_t length = parse(text, &address);
  int fd = socket(address.any.sa_family, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, &address.any, length)) fail(text);
  return fd;
}

static void ping(int fd, long rounds) {
  char message[MESSAGE] = {0};
  double start = now();
  for (long i = 0; i < rounds; i++) {
    write_all(fd, message, sizeof(message));
    read_all(fd, message, sizeof(message));
  }
  printf("%f\n", (now() - start) / (double)rounds * 1e6);
}

static void bulk(int fd, long bytes) {
  static char block[BLOCK];
  long sent = 0, received = 0;
  double start = now();
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  while (received < bytes) {
    struct pollfd ready = {.fd = fd, .events = POLLIN | (sent < bytes ? POLLOUT : 0)};
    if (poll(&ready, 1, -1) < 0) fail("poll");
    if (ready.revents & POLLOUT && sent < bytes) {
      size_t rest = (size_t)(bytes - sent);
      ssize_t length = write(fd, block, rest < sizeof(block) ? rest : sizeof(block));
      if (length < 0 && errno != EAGAIN) fail("write");
      if (length > 0) sent += length;
    }
    if (ready.revents & POLLIN) {
      ssize_t length = read(fd, block, sizeof(block));
      if (length == 0 || (length < 0 && errno != EAGAIN)) fail("read");
      if (length > 0) received += length;
    }
  }
  printf("%f\n", (double)bytes / 1e6 / (now() - start));
}

int main(int count, char** arguments) {
  if (count == 3 && !strcmp(arguments[1], "serve")) serve(arguments[2]);
  if (count == 4 && !strcmp(arguments[1], "ping")) return ping(dial(arguments[2]), atol(arguments[3])), 0;
  if (count == 4 && !strcmp(arguments[1], "bulk")) return bulk(dial(arguments[2]), atol(arguments[3])), 0;
  fprintf(stderr, "peer: serve <address> | ping <address> <rounds> | bulk <address> <bytes>\n");
  return 2;
}
