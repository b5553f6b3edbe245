/*
 * SOCK_SEQPACKET in the guest: messages listen <vsock port> <seconds> | messages connect <vsock port> <seconds>
 *
 * Sends every message of one connection back as it came: its bytes, and MSG_EOR. It reads nothing for that many seconds first.
 * After the end it sends one message of its own, with MSG_EOR: how many messages and bytes came. A program that connects looks
 * first that a message beyond the buffers is refused. Prints "listening", and what that message says.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "../program.h"

enum { LARGEST = 1 << 18 };

static int connected(const char* mode, unsigned int port) {
  struct sockaddr_vm address;
  memset(&address, 0, sizeof(address));
  address.svm_family = AF_VSOCK;
  address.svm_port = port;
  int sock = socket(AF_VSOCK, SOCK_SEQPACKET, 0);
  if (sock < 0) fail("socket");
  if (strcmp(mode, "connect") == 0) {
    address.svm_cid = VMADDR_CID_HOST;
    if (connect(sock, (struct sockaddr*)&address, sizeof(address)) < 0) fail("connect");
    return sock;
  }
  address.svm_cid = VMADDR_CID_ANY;
  if (bind(sock, (struct sockaddr*)&address, sizeof(address)) < 0) fail("bind");
  if (listen(sock, 1) < 0) fail("listen");
  printf("listening\n");
  fflush(stdout);
  int connection = accept(sock, NULL, NULL);
  if (connection < 0) fail("accept");
  close(sock);
  return connection;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: messages listen|connect <vsock port> <seconds>\n");
    return 2;
  }
  static unsigned char message[LARGEST + 1];
  int connection = connected(argv[1], (unsigned int)strtoul(argv[2], NULL, 10));
  if (strcmp(argv[1], "connect") == 0) {
    ssize_t n = send(connection, message, sizeof(message), MSG_NOSIGNAL);
    /* Until 6.3 Linux made ENOMEM of it. */
    if (n >= 0 || (errno != EMSGSIZE && errno != ENOMEM)) fail("a message beyond the buffers");
  }
  usleep((useconds_t)(strtod(argv[3], NULL) * 1e6));
  unsigned long long count = 0, bytes = 0;
  for (;;) {
    struct iovec part = {.iov_base = message, .iov_len = sizeof(message)};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n = recvmsg(connection, &header, 0);
    if (n < 0) fail("recvmsg");
    if (n == 0) break;
    count++;
    bytes += (unsigned long long)n;
    int flags = MSG_NOSIGNAL | (header.msg_flags & MSG_EOR);
    if (send(connection, message, (size_t)n, flags) != n) fail("send");
  }
  int length = snprintf((char*)message, sizeof(message), "%llu messages, %llu bytes", count, bytes);
  if (send(connection, message, (size_t)length, MSG_NOSIGNAL | MSG_EOR) != length) fail("send");
  close(connection);
  printf("%s\n", message);
  return 0;
}
