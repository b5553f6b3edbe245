#define _GNU_SOURCE
#include "passing.h"

#include "descriptor.h"
#include "rights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

napi_value vs_js_receive(napi_env env, napi_callback_info info) {
  return up_receive(env, info, false);
}

napi_value vs_js_release(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  return descriptor ? up_new_number(env, up_descriptor_release(descriptor)) : NULL;
}

static bool set_number(napi_env env, napi_value object, const char* name, double value) {
  napi_value number;
  if (napi_create_double(env, value, &number) == napi_ok && napi_set_named_property(env, object, name, number) == napi_ok) {
    return true;
  }
  up_throw_napi(env);
  return false;
}

napi_value vs_js_describe(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result, terminal;
  uv_fs_t request;
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  int fd = up_descriptor_fd(descriptor);
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return up_throw_errno(env, errno, "fcntl");
  /* By libuv: the fstat of a new glibc does not link with an old one. */
  int error = uv_fs_fstat(NULL, &request, fd, NULL);
  uv_stat_t found = request.statbuf;
  uv_fs_req_cleanup(&request);
  if (error) return up_throw_errno(env, -error, "fstat");
  UP_TRY(env, napi_create_object(env, &result));
  UP_TRY(env, napi_get_boolean(env, isatty(fd) == 1, &terminal));
  UP_TRY(env, napi_set_named_property(env, result, "terminal", terminal));
  if (!set_number(env, result, "mode", (double)found.st_mode)) return NULL;
  if (!set_number(env, result, "device", (double)found.st_rdev)) return NULL;
  return set_number(env, result, "flags", flags) ? result : NULL;
}

/* A new open file of the same terminal, without the blocking that its other holders want. -1: of the master's side there can be
 * none. */
static int open_terminal(int fd, int flags) {
  unsigned int number;
  char path[32];
  if (!isatty(fd) || ioctl(fd, TIOCGPTN, &number) == 0) return -1;
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  return open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

napi_value vs_js_unblock(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  int fd = up_descriptor_fd(descriptor);
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return up_throw_errno(env, errno, "fcntl");
  if (flags & O_NONBLOCK) return NULL;
  int opened = open_terminal(fd, flags);
  if (opened >= 0) {
    int error = dup3(opened, fd, O_CLOEXEC) < 0 ? errno : 0;
    close(opened);
    return error ? up_throw_errno(env, error, "dup3") : NULL;
  }
  return fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? up_throw_errno(env, errno, "fcntl") : NULL;
}

/* The memory of a Uint8Array, for as long as JavaScript does not run. */
static bool memory_of(napi_env env, napi_value value, void** data, size_t* length) {
  if (up_is_bytes(env, value, data, length) && *length > 0) return true;
  up_throw_type(env, "bytes must be a Uint8Array that is not empty");
  return false;
}

static napi_value moved(napi_env env, ssize_t count, const char* syscall) {
  return count < 0 ? up_throw_unless_again(env, syscall) : up_new_number(env, (double)count);
}

/* The arguments of read and write. */
struct transfer {
  int fd;
  void* data;
  size_t length;
};

static bool transfer_of(napi_env env, napi_callback_info info, struct transfer* transfer) {
  napi_value arguments[2];
  if (!up_arguments(env, info, 2, arguments)) return false;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !memory_of(env, arguments[1], &transfer->data, &transfer->length)) return false;
  transfer->fd = up_descriptor_fd(descriptor);
  return true;
}

napi_value vs_js_read(napi_env env, napi_callback_info info) {
  struct transfer transfer;
  ssize_t count;
  if (!transfer_of(env, info, &transfer)) return NULL;
  do {
    count = read(transfer.fd, transfer.data, transfer.length);
  } while (count < 0 && errno == EINTR);
  return moved(env, count, "read");
}

napi_value vs_js_write(napi_env env, napi_callback_info info) {
  struct transfer transfer;
  ssize_t count;
  if (!transfer_of(env, info, &transfer)) return NULL;
  do {
    count = write(transfer.fd, transfer.data, transfer.length);
  } while (count < 0 && errno == EINTR);
  return moved(env, count, "write");
}

napi_value vs_js_shutdown(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  return shutdown(up_descriptor_fd(descriptor), SHUT_WR) ? up_throw_errno(env, errno, "shutdown") : NULL;
}
