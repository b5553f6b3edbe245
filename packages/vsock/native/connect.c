#include "connect.h"

#include "descriptor.h"
#include "socket.h"

#include <errno.h>

napi_value vs_js_connect(napi_env env, napi_callback_info info) {
  napi_value arguments[2], done;
  struct up_sockaddr address;
  if (!up_arguments(env, info, 2, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_sockaddr(env, arguments[1], &address)) return NULL;
  int failed = connect(up_descriptor_fd(descriptor), (struct sockaddr*)&address.bytes, address.length);
  /* An interrupted connect goes on by itself, as one in progress does. */
  if (failed && errno != EINPROGRESS && errno != EINTR) return up_throw_errno(env, errno, "connect");
  UP_TRY(env, napi_get_boolean(env, !failed, &done));
  return done;
}

napi_value vs_js_finish_connect(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int error = 0;
  socklen_t length = sizeof(error);
  struct up_sockaddr peer = {.length = sizeof(peer.bytes)};
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  int fd = up_descriptor_fd(descriptor);
  /* SO_ERROR first: it alone knows why, and reading it clears it. */
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length)) return up_throw_errno(env, errno, "getsockopt");
  if (error) return up_throw_errno(env, error, "connect");
  if (getpeername(fd, (struct sockaddr*)&peer.bytes, &peer.length)) return up_throw_errno(env, errno, "connect");
  return NULL;
}
