#define _GNU_SOURCE
#include "datagram.h"

#include "socket.h"

#include <errno.h>
#include <unistd.h>

#define LONGEST 4096

napi_value vs_js_send_datagram(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct up_sockaddr address;
  uint8_t bytes[LONGEST];
  size_t length;
  if (!up_arguments(env, info, 2, arguments) || !up_sockaddr(env, arguments[0], &address) ||
      !up_bytes(env, arguments[1], "bytes", bytes, 1, sizeof(bytes), &length)) {
    return NULL;
  }
  if (address.bytes.ss_family != AF_UNIX) return up_throw_type(env, "datagrams are sent over AF_UNIX only");
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return up_throw_errno(env, errno, "socket");
  ssize_t sent = sendto(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr*)&address.bytes, address.length);
  int error = errno;
  close(fd);
  return sent < 0 ? up_throw_errno(env, error, "sendto") : NULL;
}
