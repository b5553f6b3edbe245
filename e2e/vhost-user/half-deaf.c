/*
 * A program in the guest that says "no more" and talks on: half-deaf <vsock port> <seconds>
 *
 * Accepts one connection, shuts its receiving half, and streams for that long: bytes that count up from 0 to 250 and begin again.
 * Prints "listening", and at the end how many bytes it has sent.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "../program.h"

enum { PERIOD = 251, BLOCK = 64 * PERIOD };

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: half-deaf <vsock port> <seconds>\n");
    return 2;
  }
  struct sockaddr_vm address;
  memset(&address, 0, sizeof(address));
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = (unsigned int)strtoul(argv[1], NULL, 10);
  int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (listener < 0) fail("socket");
  if (bind(listener, (struct sockaddr*)&address, sizeof(address)) < 0) fail("bind");
  if (listen(listener, 1) < 0) fail("listen");
  printf("listening\n");
  fflush(stdout);

  int connection = accept(listener, NULL, NULL);
  if (connection < 0) fail("accept");
  if (shutdown(connection, SHUT_RD) < 0) fail("shutdown");
  static unsigned char block[BLOCK];
  for (int i = 0; i < BLOCK; i++)
    block[i] = (unsigned char)(i % PERIOD);
  unsigned long long sent = 0;
  for (double end = now() + strtod(argv[2], NULL); now() < end;) {
    ssize_t n = send(connection, block + sent % PERIOD, (size_t)(BLOCK - (int)(sent % PERIOD)), MSG_NOSIGNAL);
    if (n < 0) fail("send");
    sent += (unsigned long long)n;
  }
  close(connection);
  printf("%llu\n", sent);
  return 0;
}
