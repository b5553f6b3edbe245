#define _GNU_SOURCE
#include "rights.h"

#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A vhost-user memory table has 8 regions, everything else at most one descriptor. */
#define MAX_DESCRIPTORS 8
/* More than are received, so that a test can play a front end that breaks the rule. */
#define MAX_SENT 16
#define MAX_BYTES 8192

struct received {
  int fds[MAX_DESCRIPTORS];
  size_t count;
};

static void close_from(const struct received* received, size_t first) {
  for (size_t i = first; i < received->count; i++)
    close(received->fds[i]);
}

/* Collects the descriptors of a message; false if some were cut off. */
static bool collect(struct msghdr* message, struct received* out) {
  for (struct cmsghdr* control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(out->fds, CMSG_DATA(control), count * sizeof(int)); /* the buffer has room for MAX_DESCRIPTORS, not more */
    out->count = count;
  }
  return !(message->msg_flags & MSG_CTRUNC);
}

/* An array of descriptor objects. Takes all of them: whatever is not in an object when it fails is closed. */
static napi_value wrap_all(napi_env env, const struct received* received, bool nonblocking) {
  napi_value array;
  if (napi_create_array_with_length(env, received->count, &array) != napi_ok) {
    close_from(received, 0);
    return up_throw_napi(env);
  }
  for (size_t i = 0; i < received->count; i++) {
    int flags = nonblocking ? fcntl(received->fds[i], F_GETFL) : -1;
    if (flags >= 0) fcntl(received->fds[i], F_SETFL, flags | O_NONBLOCK);
    napi_value object = up_descriptor_new(env, received->fds[i]);
    if (!object) {
      close_from(received, i + 1);
      return NULL;
    }
    if (napi_set_element(env, array, (uint32_t)i, object) != napi_ok) {
      close_from(received, i + 1);
      return up_throw_napi(env);
    }
  }
  return array;
}

napi_value up_receive(napi_env env, napi_callback_info info, bool nonblocking) {
  napi_value arguments[2], result, bytes, descriptors;
  int64_t length;
  char buffer[MAX_BYTES];
  union {
    char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
    struct cmsghdr align;
  } control;
  struct received received = {.count = 0};
  if (!up_arguments(env, info, 2, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_integer(env, arguments[1], "length", 1, MAX_BYTES, &length)) return NULL;
  struct iovec part = {.iov_base = buffer, .iov_len = (size_t)length};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
  ssize_t got;
  do {
    got = recvmsg(up_descriptor_fd(descriptor), &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return up_throw_unless_again(env, "recvmsg");
  if (!collect(&message, &received)) {
    close_from(&received, 0);
    return up_throw_errno(env, EMSGSIZE, "recvmsg");
  }
  if (!(descriptors = wrap_all(env, &received, nonblocking))) return NULL;
  if (!(bytes = up_new_bytes(env, buffer, (size_t)got))) return NULL;
  UP_TRY(env, napi_create_object(env, &result));
  UP_TRY(env, napi_set_named_property(env, result, "bytes", bytes));
  UP_TRY(env, napi_set_named_property(env, result, "descriptors", descriptors));
  return result;
}

/* Reads the numbers behind an array of descriptor objects. */
static bool numbers_of(napi_env env, napi_value array, int* fds, uint32_t* count) {
  if (napi_get_array_length(env, array, count) != napi_ok) {
    up_throw_type(env, "descriptors must be an array");
    return false;
  }
  if (*count > MAX_SENT) {
    up_throw_type(env, "at most %d descriptors, got %u", MAX_SENT, *count);
    return false;
  }
  for (uint32_t i = 0; i < *count; i++) {
    napi_value element;
    if (napi_get_element(env, array, i, &element) != napi_ok) {
      up_throw_napi(env);
      return false;
    }
    struct up_descriptor* descriptor = up_descriptor_get(env, element);
    if (!descriptor) return false;
    fds[i] = up_descriptor_fd(descriptor);
  }
  return true;
}

napi_value up_js_send(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  char buffer[MAX_BYTES];
  size_t length;
  int fds[MAX_SENT];
  uint32_t count;
  union {
    char bytes[CMSG_SPACE(MAX_SENT * sizeof(int))];
    struct cmsghdr align;
  } control;
  if (!up_arguments(env, info, 3, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_bytes(env, arguments[1], "bytes", buffer, 1, sizeof(buffer), &length)) return NULL;
  if (!numbers_of(env, arguments[2], fds, &count)) return NULL;
  struct iovec part = {.iov_base = buffer, .iov_len = length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof(control));
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(up_descriptor_fd(descriptor), &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return up_throw_unless_again(env, "sendmsg");
  return up_new_number(env, (double)sent);
}
