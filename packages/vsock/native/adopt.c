#define _GNU_SOURCE
#include "adopt.h"

#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

napi_value vs_js_placeholder(napi_env env, napi_callback_info info) {
  int ends[2];
  (void)info;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends)) return up_throw_errno(env, errno, "socketpair");
  close(ends[1]);
  return up_descriptor_new(env, ends[0]);
}

/* Identifies the file that a descriptor refers to. By libuv: the fstat of a new glibc does not link with an old one. */
static bool inode_of(int fd, uint64_t* inode) {
  uv_fs_t request;
  int error = uv_fs_fstat(NULL, &request, fd, NULL);
  *inode = error ? 0 : request.statbuf.st_ino;
  uv_fs_req_cleanup(&request);
  return !error;
}

napi_value vs_js_adopt(napi_env env, napi_callback_info info) {
  napi_value arguments[3], undefined, number, socket;
  uint64_t before, after;
  if (!up_arguments(env, info, 3, arguments)) return NULL;
  struct up_descriptor* connection = up_descriptor_get(env, arguments[0]);
  if (!connection) return NULL;
  struct up_descriptor* placeholder = up_descriptor_get(env, arguments[1]);
  if (!placeholder || !up_callback(env, arguments[2], "create")) return NULL;
  if (placeholder == connection) return up_throw_type(env, "connection and placeholder must differ");
  int fd = up_descriptor_fd(placeholder);
  if (!inode_of(fd, &before)) return up_throw_errno(env, EBADF, "adopt");
  UP_TRY(env, napi_get_undefined(env, &undefined));
  UP_TRY(env, napi_create_int32(env, fd, &number));
  UP_TRY(env, napi_call_function(env, undefined, arguments[2], 1, &number, &socket));
  up_descriptor_release(placeholder);
  /* create is JavaScript: it may have closed either. A number that is not the placeholder any more is not ours to replace. */
  if (up_descriptor_fd(connection) < 0 || !inode_of(fd, &after) || before != after) {
    return up_throw_errno(env, EBADF, "adopt");
  }
  if (dup3(up_descriptor_fd(connection), fd, O_CLOEXEC) < 0) return up_throw_errno(env, errno, "dup3");
  up_descriptor_close(connection);
  return socket;
}
