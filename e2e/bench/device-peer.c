/*
 * Both ends of the bench of vsock devices: the service in the guest, and the client on the host, which comes through a hybrid
 * Unix socket (CONNECT <port>, OK <n>). Plain C at both ends, so that what differs is the device.
 *
 *   device-peer serve <port>                             in the guest; prints "listening"
 *   device-peer ping <path> <port> <rounds>              1 KiB there and back, one at a time
 *   device-peer send <path> <port> <bytes>               to the guest, until it has read everything
 *   device-peer receive <path> <port> <bytes>            from the guest
 *
 * A client prints the seconds that it took and the median of a round in microseconds.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <linux/vm_sockets.h>

#include "connection.h"

/* What a client says first. */
struct request {
  uint64_t work; /* one of "psr" */
  uint64_t bytes;
};

static char block[BLOCK];

static void send_bytes(int fd, uint64_t bytes) {
  for (; bytes > BLOCK; bytes -= BLOCK)
    write_all(fd, block, BLOCK);
  write_all(fd, block, bytes);
}

static void receive_bytes(int fd, uint64_t bytes) {
  while (bytes > 0) {
    ssize_t got = read(fd, block, bytes < BLOCK ? bytes : BLOCK);
    if (got <= 0) fail("read");
    bytes -= (uint64_t)got;
  }
}

static void answer(int fd) {
  struct request request;
  read_all(fd, &request, sizeof(request));
  if (request.work == 'p') {
    echo(fd);
  } else if (request.work == 's') {
    receive_bytes(fd, request.bytes);
    write_all(fd, block, 1);
  } else {
    send_bytes(fd, request.bytes);
  }
  while (read(fd, block, BLOCK) > 0)
    ;
}

static void serve(const char* port) {
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = (unsigned int)atol(port)};
  serve_at((struct sockaddr*)&address, sizeof(address), port, answer);
}

static int dial(const char* path, const char* port) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char line[64];
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (strlen(path) >= sizeof(address.sun_path)) fail(path);
  strcpy(address.sun_path, path);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof(address))) fail(path);
  write_all(fd, line, (size_t)snprintf(line, sizeof(line), "CONNECT %s\n", port));
  do
    read_all(fd, line, 1);
  while (*line != '\n');
  return fd;
}

static int by_value(const void* a, const void* b) {
  double left = *(const double*)a, right = *(const double*)b;
  return (left > right) - (left < right);
}

/* Returns the median of a round, in microseconds. */
static double ping(int fd, uint64_t count) {
  double* rounds = calloc(count, sizeof(*rounds));
  if (!rounds) fail("calloc");
  for (uint64_t i = 0; i < count; i++) {
    double began = now();
    write_all(fd, block, MESSAGE);
    read_all(fd, block, MESSAGE);
    rounds[i] = now() - began;
  }
  qsort(rounds, count, sizeof(*rounds), by_value);
  double median = rounds[count / 2] * 1e6;
  free(rounds);
  return median;
}

int main(int count, char** arguments) {
  if (count == 3 && !strcmp(arguments[1], "serve")) serve(arguments[2]);
  if (count != 5) {
    fprintf(stderr, "device-peer: serve <port> | ping <path> <port> <rounds> | send|receive <path> <port> <bytes>\n");
    return 2;
  }
  struct request request = {.work = (uint64_t)arguments[1][0], .bytes = strtoull(arguments[4], NULL, 10)};
  int fd = dial(arguments[2], arguments[3]);
  double start = now(), median = 0;
  write_all(fd, &request, sizeof(request));
  if (request.work == 'p') {
    median = ping(fd, request.bytes);
  } else if (request.work == 's') {
    send_bytes(fd, request.bytes);
    read_all(fd, block, 1);
  } else {
    receive_bytes(fd, request.bytes);
  }
  printf("%f %f\n", now() - start, median);
  return 0;
}
