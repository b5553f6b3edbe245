#define _GNU_SOURCE
#include "sender.h"

#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

struct sending {
  napi_env env;
  int fd; /* a duplicate: the descriptor may be closed meanwhile */
  int flags;
  int error; /* the thread's, until it is joined */
  bool joined;
  uv_thread_t thread;
  uv_async_t done;
  napi_async_cleanup_hook_handle hook;
  napi_async_context context;
  napi_ref callback;
  size_t length;
  uint8_t bytes[];
};

static void send_all(void* data) {
  struct sending* sending = data;
  struct iovec part = {.iov_base = sending->bytes, .iov_len = sending->length};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  ssize_t sent;
  do {
    sent = sendmsg(sending->fd, &message, sending->flags);
  } while (sent < 0 && errno == EINTR);
  sending->error = sent < 0 ? errno : 0;
  uv_async_send(&sending->done);
}

static void on_closed(uv_handle_t* handle) {
  struct sending* sending = handle->data;
  if (sending->context) napi_async_destroy(sending->env, sending->context);
  if (sending->hook) napi_remove_async_cleanup_hook(sending->hook);
  free(sending);
}

static void forget_callback(struct sending* sending) {
  if (sending->callback) napi_delete_reference(sending->env, sending->callback);
  sending->callback = NULL;
}

/* The thread is through, or soon will be. */
static void finish(struct sending* sending) {
  if (sending->joined) return;
  sending->joined = true;
  uv_thread_join(&sending->thread);
  close(sending->fd);
  uv_close((uv_handle_t*)&sending->done, on_closed);
}

static void on_done(uv_async_t* async) {
  struct sending* sending = async->data;
  napi_env env = sending->env;
  napi_handle_scope scope;
  napi_value callback, receiver, argument;
  if (sending->joined) return;
  finish(sending);
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_reference_value(env, sending->callback, &callback) == napi_ok && napi_get_global(env, &receiver) == napi_ok &&
      napi_create_int32(env, sending->error, &argument) == napi_ok) {
    forget_callback(sending);
    napi_make_callback(env, sending->context, receiver, callback, 1, &argument, NULL);
    up_report_exception(env);
  }
  napi_close_handle_scope(env, scope);
}

/* The environment is going away and waits until on_closed has removed the hook. */
static void on_environment_end(napi_async_cleanup_hook_handle hook, void* data) {
  struct sending* sending = data;
  (void)hook;
  /* The call is over: its reference is gone already, and what it left is about to be closed. */
  if (sending->joined) return;
  shutdown(sending->fd, SHUT_RDWR);
  forget_callback(sending);
  finish(sending);
}

/* -1 with errno. The file is shared with the original, and so is what is set here. */
static int blocking_duplicate(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK)) return -1;
  return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* Without signals: they are for the threads of Node. By libuv, and not pthread_sigmask: those of a new glibc do not link with an
 * old one. On Linux sigprocmask is about the calling thread, too. 0, or an errno. */
static int start_thread(struct sending* sending) {
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  int error = uv_thread_create(&sending->thread, send_all, sending);
  sigprocmask(SIG_SETMASK, &before, NULL);
  return -error;
}

/* Everything that needs the environment. False: an exception is pending, and `sending` is freed, now or soon. */
static bool prepare(napi_env env, struct sending* sending, napi_value callback) {
  uv_loop_t* loop;
  napi_value name;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok || uv_async_init(loop, &sending->done, on_done)) {
    close(sending->fd);
    free(sending);
    up_throw_errno(env, ENOMEM, "uv_async_init");
    return false;
  }
  sending->done.data = sending;
  int error = ENOMEM;
  if (napi_create_reference(env, callback, 1, &sending->callback) == napi_ok &&
      napi_add_async_cleanup_hook(env, on_environment_end, sending, &sending->hook) == napi_ok &&
      napi_create_string_utf8(env, "upcall.sender", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_async_init(env, NULL, name, &sending->context) == napi_ok && (error = start_thread(sending)) == 0) {
    return true;
  }
  forget_callback(sending);
  sending->joined = true;
  close(sending->fd);
  uv_close((uv_handle_t*)&sending->done, on_closed);
  up_throw_errno(env, error, "uv_thread_create");
  return false;
}

napi_value vs_js_send_waiting(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  bool eor;
  size_t length;
  void* data;
  if (!up_arguments(env, info, 4, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_memory(env, arguments[1], "bytes", &data, &length)) return NULL;
  if (napi_get_value_bool(env, arguments[2], &eor) != napi_ok) return up_throw_type(env, "eor must be a boolean");
  if (!up_callback(env, arguments[3], "callback")) return NULL;
  struct sending* sending = calloc(1, sizeof(*sending) + length);
  if (!sending) return up_throw_errno(env, ENOMEM, "calloc");
  sending->env = env;
  sending->flags = MSG_NOSIGNAL | (eor ? MSG_EOR : 0);
  sending->length = length;
  if (length > 0) memcpy(sending->bytes, data, length);
  sending->fd = blocking_duplicate(up_descriptor_fd(descriptor));
  if (sending->fd < 0) {
    int error = errno;
    free(sending);
    return up_throw_errno(env, error, "fcntl");
  }
  prepare(env, sending, arguments[3]);
  return NULL;
}

napi_value vs_js_cut(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  return shutdown(up_descriptor_fd(descriptor), SHUT_RDWR) ? up_throw_errno(env, errno, "shutdown") : NULL;
}
