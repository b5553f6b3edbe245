#define _GNU_SOURCE
#include "inherit.h"

#include "descriptor.h"
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>

static bool number_of(napi_env env, napi_callback_info info, int* fd) {
  napi_value arguments[1];
  int64_t number;
  if (!up_arguments(env, info, 1, arguments) || !up_integer(env, arguments[0], "fd", 0, INT_MAX, &number)) return false;
  *fd = (int)number;
  return true;
}

static bool set_flag(int fd, int get, int set, int flag) {
  int flags = fcntl(fd, get);
  return flags >= 0 && fcntl(fd, set, flags | flag) >= 0;
}

static bool option(int fd, int name, int* value) {
  socklen_t length = sizeof(*value);
  return !getsockopt(fd, SOL_SOCKET, name, value, &length);
}

napi_value vs_js_inspect(napi_env env, napi_callback_info info) {
  int fd, family, type, listening;
  struct up_sockaddr local = {.length = sizeof(local.bytes)}, peer = {.length = sizeof(peer.bytes)};
  napi_value result, value;
  if (!number_of(env, info, &fd)) return NULL;
  if (!option(fd, SO_DOMAIN, &family) || !option(fd, SO_TYPE, &type) || !option(fd, SO_ACCEPTCONN, &listening)) {
    return up_throw_errno(env, errno, "getsockopt");
  }
  if (getsockname(fd, (struct sockaddr*)&local.bytes, &local.length)) return up_throw_errno(env, errno, "getsockname");
  UP_TRY(env, napi_create_object(env, &result));
  if (!(value = up_new_number(env, family))) return NULL;
  UP_TRY(env, napi_set_named_property(env, result, "family", value));
  if (!(value = up_new_number(env, type))) return NULL;
  UP_TRY(env, napi_set_named_property(env, result, "type", value));
  UP_TRY(env, napi_get_boolean(env, listening, &value));
  UP_TRY(env, napi_set_named_property(env, result, "listening", value));
  if (!(value = up_new_bytes(env, &local.bytes, local.length))) return NULL;
  UP_TRY(env, napi_set_named_property(env, result, "local", value));
  if (getpeername(fd, (struct sockaddr*)&peer.bytes, &peer.length)) return result;
  if (!(value = up_new_bytes(env, &peer.bytes, peer.length))) return NULL;
  UP_TRY(env, napi_set_named_property(env, result, "peer", value));
  return result;
}

napi_value vs_js_close_on_exec(napi_env env, napi_callback_info info) {
  int fd;
  if (!number_of(env, info, &fd)) return NULL;
  return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC) ? NULL : up_throw_errno(env, errno, "fcntl");
}

napi_value vs_js_inherit(napi_env env, napi_callback_info info) {
  int fd, type;
  if (!number_of(env, info, &fd)) return NULL;
  if (!option(fd, SO_TYPE, &type)) return up_throw_errno(env, errno, "getsockopt");
  if (!set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC) || !set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK)) {
    return up_throw_errno(env, errno, "fcntl");
  }
  return up_descriptor_new(env, fd);
}
