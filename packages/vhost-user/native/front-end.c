#define _GNU_SOURCE
#include "front-end.h"

#include "descriptor.h"
#include "socket.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_SIZE ((int64_t)1 << 46)

napi_value vu_js_connect(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  struct up_sockaddr address;
  if (!up_arguments(env, info, 1, arguments) || !up_sockaddr(env, arguments[0], &address)) return NULL;
  if (address.bytes.ss_family != AF_UNIX) return up_throw_type(env, "only AF_UNIX is connected here");
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return up_throw_errno(env, errno, "socket");
  if (connect(fd, (struct sockaddr*)&address.bytes, address.length)) {
    int error = errno;
    close(fd);
    return up_throw_errno(env, error, "connect");
  }
  return up_descriptor_new(env, fd);
}

napi_value vu_js_memfd(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int64_t size;
  if (!up_arguments(env, info, 1, arguments) || !up_integer(env, arguments[0], "size", 1, MAX_SIZE, &size)) return NULL;
  int fd = memfd_create("guest-memory", MFD_CLOEXEC);
  if (fd < 0) return up_throw_errno(env, errno, "memfd_create");
  if (ftruncate(fd, size)) {
    int error = errno;
    close(fd);
    return up_throw_errno(env, error, "ftruncate");
  }
  return up_descriptor_new(env, fd);
}

napi_value vu_js_eventfd(napi_env env, napi_callback_info info) {
  (void)info;
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return fd < 0 ? up_throw_errno(env, errno, "eventfd") : up_descriptor_new(env, fd);
}
