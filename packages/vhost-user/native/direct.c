#define _GNU_SOURCE
#include "direct.h"

#include "descriptor.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* IOV_MAX of Linux. */
#define MAX_PIECES 1024
#define WORDS 3

struct window {
  uint32_t index;
  char* bytes;
  size_t length;
};

struct transfer {
  int fd;
  int count;
  struct iovec pieces[MAX_PIECES];
};

/* The window with this index; the one of the last piece is remembered, for most pieces lie in the same. */
static bool find_window(napi_env env, napi_value windows, uint32_t index, struct window* window) {
  napi_value value;
  void* bytes;
  if (window->bytes && window->index == index) return true;
  if (napi_get_element(env, windows, index, &value) != napi_ok) {
    up_throw_napi(env);
    return false;
  }
  if (!up_is_bytes(env, value, &bytes, &window->length)) {
    up_throw_type(env, "window %u must be a Uint8Array", index);
    return false;
  }
  window->index = index;
  window->bytes = bytes;
  return true;
}

static bool gather(napi_env env, napi_value windows, const uint32_t* words, struct transfer* transfer) {
  struct window window = {0};
  uint64_t total = 0;
  for (int i = 0; i < transfer->count; i++, words += WORDS) {
    uint32_t start = words[1], length = words[2];
    if (!find_window(env, windows, words[0], &window)) return false;
    if (start > window.length || length > window.length - start) {
      up_throw_type(env, "piece %d of %u bytes at %u does not lie in window %u", i, length, start, words[0]);
      return false;
    }
    transfer->pieces[i] = (struct iovec){.iov_base = window.bytes + start, .iov_len = length};
    total += length;
  }
  /* recvmsg would answer 0 to an empty one, which means the end of the stream. The kernel carries at most MAX_RW_COUNT. */
  if (total > 0 && total <= INT_MAX) return true;
  up_throw_type(env, "pieces must have 1 to %d bytes in all", INT_MAX);
  return false;
}

static bool get_transfer(napi_env env, napi_callback_info info, struct transfer* transfer) {
  napi_value arguments[4];
  bool fits = false;
  napi_typedarray_type type;
  size_t words = 0;
  void* data = NULL;
  int64_t count;
  if (!up_arguments(env, info, 4, arguments)) return false;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return false;
  if (napi_is_array(env, arguments[1], &fits) != napi_ok || !fits) {
    up_throw_type(env, "windows must be an array");
    return false;
  }
  if (napi_is_typedarray(env, arguments[2], &fits) != napi_ok || !fits ||
      napi_get_typedarray_info(env, arguments[2], &type, &words, &data, NULL, NULL) != napi_ok || type != napi_uint32_array) {
    up_throw_type(env, "pieces must be a Uint32Array");
    return false;
  }
  if (!up_integer(env, arguments[3], "count", 1, MAX_PIECES, &count)) return false;
  if ((size_t)count * WORDS > words) {
    up_throw_type(env, "pieces has %zu numbers, %lld pieces need more", words, (long long)count);
    return false;
  }
  transfer->fd = up_descriptor_fd(descriptor);
  transfer->count = (int)count;
  return gather(env, arguments[1], data, transfer);
}

static napi_value answer(napi_env env, ssize_t done, const char* syscall) {
  if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return up_throw_errno(env, errno, syscall);
  return up_new_number(env, (double)done);
}

napi_value vu_js_read_into(napi_env env, napi_callback_info info) {
  struct transfer transfer;
  ssize_t done;
  if (!get_transfer(env, info, &transfer)) return NULL;
  struct msghdr message = {.msg_iov = transfer.pieces, .msg_iovlen = (size_t)transfer.count};
  do {
    done = recvmsg(transfer.fd, &message, MSG_DONTWAIT);
  } while (done < 0 && errno == EINTR);
  return answer(env, done, "recvmsg");
}

napi_value vu_js_write_from(napi_env env, napi_callback_info info) {
  struct transfer transfer;
  ssize_t done;
  if (!get_transfer(env, info, &transfer)) return NULL;
  struct msghdr message = {.msg_iov = transfer.pieces, .msg_iovlen = (size_t)transfer.count};
  do {
    done = sendmsg(transfer.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (done < 0 && errno == EINTR);
  return answer(env, done, "sendmsg");
}
