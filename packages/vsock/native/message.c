#define _GNU_SOURCE
#include "message.h"

#include "descriptor.h"
#include "socket.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* More than any transport takes for one message: AF_VSOCK's buffer sizes are u32s. */
#define LONGEST UINT32_MAX

napi_value vs_js_typed_socket(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int64_t family, type;
  if (!up_arguments(env, info, 2, arguments)) return NULL;
  if (!up_integer(env, arguments[0], "family", 0, INT_MAX, &family)) return NULL;
  /* Not the flags that Linux takes along with the type. */
  if (!up_integer(env, arguments[1], "type", 1, SOCK_SEQPACKET, &type)) return NULL;
  int fd = socket((int)family, (int)type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd < 0 ? up_throw_errno(env, errno, "socket") : up_descriptor_new(env, fd);
}

static ssize_t receive(int fd, struct msghdr* message, int flags) {
  ssize_t got;
  do {
    got = recvmsg(fd, message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  return got;
}

napi_value vs_js_message_length(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  /* Not an empty buffer: AF_VSOCK answers that with 0, whatever is there. */
  char byte;
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  ssize_t got = receive(up_descriptor_fd(descriptor), &message, MSG_PEEK | MSG_TRUNC);
  return got < 0 ? up_throw_unless_again(env, "recvmsg") : up_new_number(env, (double)got);
}

/* Whether the message has brought anything beside its bytes. Descriptors that a peer passes are closed: nothing asks for them. */
static bool closes_rights(struct msghdr* message) {
  bool any = message->msg_flags & MSG_CTRUNC;
  for (struct cmsghdr* control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
    any = true;
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= control->cmsg_len; at += sizeof(int)) {
      int fd;
      memcpy(&fd, (char*)control + at, sizeof(fd));
      close(fd);
    }
  }
  return any;
}

static bool set_boolean(napi_env env, napi_value object, const char* name, bool value) {
  napi_value boolean;
  return napi_get_boolean(env, value, &boolean) == napi_ok && napi_set_named_property(env, object, name, boolean) == napi_ok;
}

static napi_value describe_message(napi_env env, const void* data, size_t kept, size_t length, const struct msghdr* message,
                                   bool end) {
  napi_value result, bytes, number, from;
  if (!(bytes = up_new_bytes(env, data, kept)) || !(number = up_new_number(env, (double)length))) return NULL;
  UP_TRY(env, napi_create_object(env, &result));
  UP_TRY(env, napi_set_named_property(env, result, "bytes", bytes));
  UP_TRY(env, napi_set_named_property(env, result, "length", number));
  if (!set_boolean(env, result, "eor", message->msg_flags & MSG_EOR) || !set_boolean(env, result, "end", end)) {
    return up_throw_napi(env);
  }
  if (message->msg_namelen == 0) return result;
  if (!(from = up_new_bytes(env, message->msg_name, message->msg_namelen))) return NULL;
  UP_TRY(env, napi_set_named_property(env, result, "from", from));
  return result;
}

napi_value vs_js_receive_message(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result;
  int64_t limit;
  struct up_sockaddr from;
  union {
    char bytes[64]; /* of a time, and of what else may come */
    struct cmsghdr align;
  } control;
  if (!up_arguments(env, info, 2, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_integer(env, arguments[1], "limit", 0, LONGEST, &limit)) return NULL;
  void* data = malloc(limit > 0 ? (size_t)limit : 1);
  if (!data) return up_throw_errno(env, ENOMEM, "malloc");
  struct iovec part = {.iov_base = data, .iov_len = (size_t)limit};
  struct msghdr message = {.msg_name = &from.bytes,
                           .msg_namelen = sizeof(from.bytes),
                           .msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof(control.bytes)};
  ssize_t got = receive(up_descriptor_fd(descriptor), &message, MSG_TRUNC);
  if (got < 0) {
    int error = errno;
    free(data);
    errno = error;
    return up_throw_unless_again(env, "recvmsg");
  }
  bool end = got == 0 && !closes_rights(&message);
  if (got > 0) closes_rights(&message);
  result = describe_message(env, data, got < limit ? (size_t)got : (size_t)limit, (size_t)got, &message, end);
  free(data);
  return result;
}

/* Whether the last argument is there: undefined stands for no argument. */
static bool given(napi_env env, napi_value value) {
  napi_valuetype type;
  return napi_typeof(env, value, &type) == napi_ok && type != napi_undefined;
}

napi_value vs_js_send_message(napi_env env, napi_callback_info info) {
  napi_value arguments[4], done;
  bool eor;
  struct up_sockaddr to = {.length = 0};
  struct iovec part;
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (!up_arguments(env, info, 4, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_memory(env, arguments[1], "bytes", &part.iov_base, &part.iov_len)) return NULL;
  if (napi_get_value_bool(env, arguments[2], &eor) != napi_ok) return up_throw_type(env, "eor must be a boolean");
  if (given(env, arguments[3])) {
    if (!up_sockaddr(env, arguments[3], &to)) return NULL;
    message.msg_name = &to.bytes;
    message.msg_namelen = to.length;
  }
  ssize_t sent;
  do {
    sent = sendmsg(up_descriptor_fd(descriptor), &message, MSG_DONTWAIT | MSG_NOSIGNAL | (eor ? MSG_EOR : 0));
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return up_throw_errno(env, errno, "sendmsg");
  UP_TRY(env, napi_get_boolean(env, sent >= 0, &done));
  return done;
}

/* AF_VSOCK refuses a send of nothing if the peer has closed. Over AF_UNIX poll tells, and the send would be a message. */
static bool refuses(int fd) {
  int domain = AF_UNIX;
  socklen_t length = sizeof(domain);
  struct msghdr nothing = {.msg_iov = NULL};
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) || domain != AF_VSOCK) return false;
  return sendmsg(fd, &nothing, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN && errno != EINTR;
}

napi_value vs_js_hung_up(napi_env env, napi_callback_info info) {
  napi_value arguments[1], gone;
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  struct pollfd look = {.fd = up_descriptor_fd(descriptor)};
  bool hung = poll(&look, 1, 0) > 0 || refuses(look.fd);
  UP_TRY(env, napi_get_boolean(env, hung, &gone));
  return gone;
}
