#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

struct up_descriptor {
  napi_env env;
  int fd;          /* -1 once closed or released */
  int owners;      /* the JavaScript object, the open poll handle */
  bool polling;    /* poll is open, not closing */
  bool referenced; /* watching keeps the loop alive */
  uv_poll_t poll;
  napi_async_cleanup_hook_handle hook; /* hook and context live as long as poll */
  napi_async_context context;
  napi_ref object, callback; /* while watched: strong, so neither is collected under libuv */
};

static void let_go(struct up_descriptor* descriptor) {
  if (--descriptor->owners == 0) free(descriptor);
}

static void on_poll_closed(uv_handle_t* handle) {
  struct up_descriptor* descriptor = handle->data;
  /* Not before here: close() may be called from inside a callback that runs in this context. */
  if (descriptor->context) napi_async_destroy(descriptor->env, descriptor->context);
  if (descriptor->hook) napi_remove_async_cleanup_hook(descriptor->hook);
  let_go(descriptor);
}

static void forget_callback(struct up_descriptor* descriptor) {
  if (descriptor->callback) napi_delete_reference(descriptor->env, descriptor->callback);
  if (descriptor->object) napi_delete_reference(descriptor->env, descriptor->object);
  descriptor->callback = descriptor->object = NULL;
}

static void stop_polling(struct up_descriptor* descriptor) {
  forget_callback(descriptor);
  if (!descriptor->polling) return;
  descriptor->polling = false;
  /* Takes the number out of epoll at once, so that it may be closed right after; only the memory has to wait. */
  uv_close((uv_handle_t*)&descriptor->poll, on_poll_closed);
}

void up_descriptor_close(struct up_descriptor* descriptor) {
  stop_polling(descriptor);
  if (descriptor->fd >= 0) close(descriptor->fd);
  descriptor->fd = -1;
}

int up_descriptor_release(struct up_descriptor* descriptor) {
  stop_polling(descriptor);
  int fd = descriptor->fd;
  descriptor->fd = -1;
  return fd;
}

int up_descriptor_fd(const struct up_descriptor* descriptor) {
  return descriptor->fd;
}

static void on_collected(napi_env env, void* data, void* hint) {
  (void)env;
  (void)hint;
  up_descriptor_close(data);
  let_go(data);
}

/* The environment is going away and waits until on_poll_closed has removed the hook. */
static void on_environment_end(napi_async_cleanup_hook_handle hook, void* data) {
  (void)hook;
  up_descriptor_close(data);
}

napi_value up_descriptor_new(napi_env env, int fd) {
  napi_value object;
  struct up_descriptor* descriptor = calloc(1, sizeof(*descriptor));
  if (!descriptor) {
    close(fd);
    return up_throw_errno(env, ENOMEM, "calloc");
  }
  descriptor->env = env;
  descriptor->fd = fd;
  descriptor->referenced = true;
  descriptor->owners = 1;
  if (napi_create_object(env, &object) != napi_ok || napi_wrap(env, object, descriptor, on_collected, NULL, NULL) != napi_ok) {
    close(fd);
    free(descriptor);
    return up_throw_napi(env);
  }
  UP_TRY(env, napi_type_tag_object(env, object, &up_descriptor_tag)); /* on_collected owns it from here */
  return object;
}

static struct up_descriptor* any_descriptor(napi_env env, napi_value value) {
  napi_valuetype type;
  bool ours = false;
  void* data = NULL;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, value, &up_descriptor_tag, &ours) != napi_ok || !ours ||
      napi_unwrap(env, value, &data) != napi_ok) {
    up_throw_type(env, "expected a descriptor of this addon");
    return NULL;
  }
  return data;
}

struct up_descriptor* up_descriptor_get(napi_env env, napi_value value) {
  struct up_descriptor* descriptor = any_descriptor(env, value);
  if (!descriptor || descriptor->fd >= 0) return descriptor;
  up_throw_errno(env, EBADF, "descriptor");
  return NULL;
}

static void on_ready(uv_poll_t* poll, int status, int events) {
  struct up_descriptor* descriptor = poll->data;
  napi_env env = descriptor->env;
  napi_handle_scope scope;
  napi_value object, callback, argument;
  if (!descriptor->callback || napi_open_handle_scope(env, &scope) != napi_ok) return;
  /* libuv has no errno for EPOLLERR: it says EBADF and stops. JavaScript gets 0 and asks SO_ERROR. */
  if (napi_get_reference_value(env, descriptor->object, &object) == napi_ok &&
      napi_get_reference_value(env, descriptor->callback, &callback) == napi_ok &&
      napi_create_int32(env, status < 0 ? 0 : events, &argument) == napi_ok &&
      napi_make_callback(env, descriptor->context, object, callback, 1, &argument, NULL) != napi_ok) {
    up_report_exception(env);
  }
  napi_close_handle_scope(env, scope);
}

static bool start_polling(napi_env env, struct up_descriptor* descriptor) {
  uv_loop_t* loop;
  napi_value name;
  if (descriptor->polling) return true;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    up_throw_napi(env);
    return false;
  }
  int error = uv_poll_init(loop, &descriptor->poll, descriptor->fd);
  if (error) {
    up_throw_errno(env, -error, "uv_poll_init");
    return false;
  }
  descriptor->poll.data = descriptor;
  descriptor->polling = true;
  descriptor->owners++;
  if (!descriptor->referenced) uv_unref((uv_handle_t*)&descriptor->poll);
  /* The context gets a resource of its own: newer Nodes keep the given one alive, and an object is to stay collectable. */
  if (napi_add_async_cleanup_hook(env, on_environment_end, descriptor, &descriptor->hook) == napi_ok &&
      napi_create_string_utf8(env, "upcall.descriptor", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_async_init(env, NULL, name, &descriptor->context) == napi_ok) {
    return true;
  }
  up_descriptor_close(descriptor);
  up_throw_napi(env);
  return false;
}

static bool remember_callback(napi_env env, struct up_descriptor* descriptor, napi_value object, napi_value callback) {
  forget_callback(descriptor);
  if (napi_create_reference(env, object, 1, &descriptor->object) == napi_ok &&
      napi_create_reference(env, callback, 1, &descriptor->callback) == napi_ok) {
    return true;
  }
  forget_callback(descriptor);
  up_throw_napi(env);
  return false;
}

napi_value up_js_duplicate(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int64_t number;
  if (!up_arguments(env, info, 1, arguments) || !up_integer(env, arguments[0], "fd", 0, INT_MAX, &number)) return NULL;
  /* Not 0 to 2: a program that finds them closed may take them for its own. */
  int fd = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
  return fd < 0 ? up_throw_errno(env, errno, "fcntl") : up_descriptor_new(env, fd);
}

napi_value up_js_close(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = any_descriptor(env, arguments[0]);
  if (descriptor) up_descriptor_close(descriptor);
  return NULL;
}

napi_value up_js_watch(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  int64_t events;
  if (!up_arguments(env, info, 3, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor) return NULL;
  if (!up_integer(env, arguments[1], "events", 1, UV_READABLE | UV_WRITABLE | UV_PRIORITIZED, &events)) return NULL;
  if (!up_callback(env, arguments[2], "callback")) return NULL;
  if (!start_polling(env, descriptor)) return NULL;
  if (!remember_callback(env, descriptor, arguments[0], arguments[2])) return NULL;
  int error = uv_poll_start(&descriptor->poll, (int)events, on_ready);
  if (!error) return NULL;
  forget_callback(descriptor);
  return up_throw_errno(env, -error, "uv_poll_start");
}

napi_value up_js_unwatch(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = any_descriptor(env, arguments[0]);
  if (!descriptor || !descriptor->polling) return NULL;
  uv_poll_stop(&descriptor->poll);
  forget_callback(descriptor);
  return NULL;
}

static napi_value set_referenced(napi_env env, napi_callback_info info, bool referenced) {
  napi_value arguments[1];
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  struct up_descriptor* descriptor = any_descriptor(env, arguments[0]);
  if (!descriptor) return NULL;
  descriptor->referenced = referenced;
  if (!descriptor->polling) return NULL;
  if (referenced)
    uv_ref((uv_handle_t*)&descriptor->poll);
  else
    uv_unref((uv_handle_t*)&descriptor->poll);
  return NULL;
}

napi_value up_js_ref(napi_env env, napi_callback_info info) {
  return set_referenced(env, info, true);
}

napi_value up_js_unref(napi_env env, napi_callback_info info) {
  return set_referenced(env, info, false);
}
