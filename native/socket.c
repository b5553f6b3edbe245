#define _GNU_SOURCE
#include "socket.h"

#include "descriptor.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* Longer than any option this is used for (16 bytes of struct timeval). */
#define OPTION_MAX 64

bool up_sockaddr(napi_env env, napi_value value, struct up_sockaddr* out) {
  size_t length;
  memset(out, 0, sizeof(*out));
  if (!up_bytes(env, value, "sockaddr", &out->bytes, sizeof(sa_family_t), sizeof(out->bytes), &length)) return false;
  out->length = (socklen_t)length;
  return true;
}

napi_value up_js_socket(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int64_t family;
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  if (!up_integer(env, arguments[0], "family", 0, INT_MAX, &family)) return NULL;
  int fd = socket((int)family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd < 0 ? up_throw_errno(env, errno, "socket") : up_descriptor_new(env, fd);
}

napi_value up_js_bind(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct up_sockaddr address;
  if (!up_arguments(env, info, 2, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_sockaddr(env, arguments[1], &address)) return NULL;
  int failed = bind(up_descriptor_fd(descriptor), (struct sockaddr*)&address.bytes, address.length);
  return failed ? up_throw_errno(env, errno, "bind") : NULL;
}

napi_value up_js_listen(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int64_t backlog;
  if (!up_arguments(env, info, 2, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_integer(env, arguments[1], "backlog", 0, INT_MAX, &backlog)) return NULL;
  return listen(up_descriptor_fd(descriptor), (int)backlog) ? up_throw_errno(env, errno, "listen") : NULL;
}

/* The next connection, without those that died in the queue. -1 with errno. */
static int accept_one(int fd, struct up_sockaddr* peer) {
  for (;;) {
    peer->length = sizeof(peer->bytes);
    int accepted = accept4(fd, (struct sockaddr*)&peer->bytes, &peer->length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted >= 0 || (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)) return accepted;
  }
}

napi_value up_js_accept(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result, connection, bytes;
  struct up_sockaddr peer;
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  int accepted = accept_one(up_descriptor_fd(descriptor), &peer);
  if (accepted < 0) return up_throw_unless_again(env, "accept");
  if (!(connection = up_descriptor_new(env, accepted))) return NULL;
  if (!(bytes = up_new_bytes(env, &peer.bytes, peer.length))) return NULL;
  UP_TRY(env, napi_create_object(env, &result));
  UP_TRY(env, napi_set_named_property(env, result, "descriptor", connection));
  UP_TRY(env, napi_set_named_property(env, result, "peer", bytes));
  return result;
}

typedef int (*name_call)(int, struct sockaddr*, socklen_t*);

static napi_value name_of(napi_env env, napi_callback_info info, name_call call, const char* syscall) {
  napi_value arguments[1];
  struct up_sockaddr name = {.length = sizeof(name.bytes)};
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  if (call(up_descriptor_fd(descriptor), (struct sockaddr*)&name.bytes, &name.length)) {
    return up_throw_errno(env, errno, syscall);
  }
  return up_new_bytes(env, &name.bytes, name.length);
}

napi_value up_js_getsockname(napi_env env, napi_callback_info info) {
  return name_of(env, info, getsockname, "getsockname");
}

napi_value up_js_getpeername(napi_env env, napi_callback_info info) {
  return name_of(env, info, getpeername, "getpeername");
}

napi_value up_js_setsockopt(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  int64_t level, option;
  uint8_t value[OPTION_MAX];
  size_t length;
  if (!up_arguments(env, info, 4, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_integer(env, arguments[1], "level", 0, INT_MAX, &level) ||
      !up_integer(env, arguments[2], "option", 0, INT_MAX, &option) ||
      !up_bytes(env, arguments[3], "value", value, 1, sizeof(value), &length)) {
    return NULL;
  }
  int failed = setsockopt(up_descriptor_fd(descriptor), (int)level, (int)option, value, (socklen_t)length);
  return failed ? up_throw_errno(env, errno, "setsockopt") : NULL;
}

napi_value up_js_getsockopt(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  int64_t level, option, wanted;
  uint8_t value[OPTION_MAX];
  if (!up_arguments(env, info, 4, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_integer(env, arguments[1], "level", 0, INT_MAX, &level) ||
      !up_integer(env, arguments[2], "option", 0, INT_MAX, &option) ||
      !up_integer(env, arguments[3], "length", 1, sizeof(value), &wanted)) {
    return NULL;
  }
  socklen_t length = (socklen_t)wanted;
  if (getsockopt(up_descriptor_fd(descriptor), (int)level, (int)option, value, &length)) {
    return up_throw_errno(env, errno, "getsockopt");
  }
  return up_new_bytes(env, value, length);
}
