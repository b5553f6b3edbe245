#include "channel.h"

#include "descriptor.h"
#include "rights.h"

#include <errno.h>
#include <unistd.h>

napi_value vu_js_receive(napi_env env, napi_callback_info info) {
  return up_receive(env, info, true);
}

napi_value vu_js_drain(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  uint64_t count;
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  ssize_t got = read(up_descriptor_fd(descriptor), &count, sizeof(count));
  if (got == (ssize_t)sizeof(count) || (got < 0 && (errno == EAGAIN || errno == EINTR))) return NULL;
  /* Something else, at its end say: it would be readable for ever. */
  return up_throw_errno(env, got < 0 ? errno : EINVAL, "read");
}

napi_value vu_js_signal(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  const uint64_t one = 1;
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  ssize_t written;
  do {
    written = write(up_descriptor_fd(descriptor), &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
  /* EAGAIN: the counter is full, so the other side has a reason to wake up already. */
  return written < 0 && errno != EAGAIN ? up_throw_errno(env, errno, "write") : NULL;
}
