#define _GNU_SOURCE
#include "mapping.h"

#include "descriptor.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <uv.h>

#define MAX_SIZE ((int64_t)1 << 46)
#define MAX_WINDOW ((int64_t)1 << 32)

static const napi_type_tag mapping_tag = {0x3b7a1c5e09f24d68, 0x8e61d02f7cb94a13};

struct mapping {
  void* start; /* NULL once unmapped */
  size_t length;
  size_t owners;     /* the JavaScript object, each window's backing store */
  napi_ref* windows; /* weak */
  size_t count;
};

static void release_memory(struct mapping* mapping) {
  if (mapping->start) munmap(mapping->start, mapping->length);
  mapping->start = NULL;
}

static void let_go(struct mapping* mapping) {
  if (--mapping->owners > 0) return;
  release_memory(mapping);
  free(mapping->windows);
  free(mapping);
}

static void on_window_collected(napi_env env, void* data, void* hint) {
  (void)env;
  (void)data;
  let_go(hint);
}

static void on_mapping_collected(napi_env env, void* data, void* hint) {
  struct mapping* mapping = data;
  (void)hint;
  for (size_t i = 0; i < mapping->count; i++) {
    if (mapping->windows[i]) napi_delete_reference(env, mapping->windows[i]);
  }
  mapping->count = 0;
  let_go(mapping);
}

/* Maps from the start of the file: with huge pages an offset would have to be a multiple of their size. */
static void* map_file(int fd, size_t length, int* error) {
  uv_fs_t request; /* libuv's, because glibc's own fstat has been another symbol since 2.33 */
  int status = uv_fs_fstat(NULL, &request, fd, NULL);
  uint64_t size = request.statbuf.st_size;
  uv_fs_req_cleanup(&request);
  if (status < 0 || size < length) {
    *error = status < 0 ? -status : EINVAL;
    return NULL;
  }
  void* start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (start == MAP_FAILED) {
    *error = errno;
    return NULL;
  }
  madvise(start, length, MADV_DONTDUMP); /* a guest's memory does not belong in our core file */
  return start;
}

static struct mapping* new_mapping(napi_env env, int fd, size_t length, size_t windows) {
  int error = ENOMEM;
  struct mapping* mapping = calloc(1, sizeof(*mapping));
  if (mapping && (mapping->windows = calloc(windows, sizeof(napi_ref))) && (mapping->start = map_file(fd, length, &error))) {
    mapping->length = length;
    mapping->owners = 1;
    return mapping;
  }
  if (mapping) free(mapping->windows);
  free(mapping);
  up_throw_errno(env, error, "mmap");
  return NULL;
}

static bool add_window(napi_env env, struct mapping* mapping, napi_value array, char* at, size_t length) {
  napi_value window;
  if (napi_create_external_arraybuffer(env, at, length, on_window_collected, mapping, &window) != napi_ok) return false;
  mapping->owners++;
  return napi_create_reference(env, window, 0, &mapping->windows[mapping->count++]) == napi_ok &&
         napi_set_element(env, array, (uint32_t)(mapping->count - 1), window) == napi_ok;
}

napi_value vu_js_map(napi_env env, napi_callback_info info) {
  napi_value arguments[5], result, object, array;
  int64_t offset, size, step, length;
  if (!up_arguments(env, info, 5, arguments)) return NULL;
  struct up_descriptor* descriptor = up_descriptor_get(env, arguments[0]);
  if (!descriptor || !up_integer(env, arguments[1], "offset", 0, MAX_SIZE, &offset) ||
      !up_integer(env, arguments[2], "size", 1, MAX_SIZE, &size) ||
      !up_integer(env, arguments[3], "step", 1, MAX_WINDOW, &step) ||
      !up_integer(env, arguments[4], "length", step, MAX_WINDOW, &length)) {
    return NULL;
  }
  UP_TRY(env, napi_create_object(env, &result));
  UP_TRY(env, napi_create_object(env, &object));
  UP_TRY(env, napi_create_array(env, &array));
  size_t windows = (size_t)((size + step - 1) / step);
  struct mapping* mapping = new_mapping(env, up_descriptor_fd(descriptor), (size_t)(offset + size), windows);
  if (!mapping) return NULL;
  if (napi_wrap(env, object, mapping, on_mapping_collected, NULL, NULL) != napi_ok) {
    let_go(mapping);
    return up_throw_napi(env);
  }
  UP_TRY(env, napi_type_tag_object(env, object, &mapping_tag)); /* on_mapping_collected owns it from here */
  for (int64_t at = 0; at < size; at += step) {
    int64_t left = size - at;
    if (!add_window(env, mapping, array, (char*)mapping->start + offset + at, (size_t)(left < length ? left : length))) {
      return up_throw_napi(env);
    }
  }
  UP_TRY(env, napi_set_named_property(env, result, "mapping", object));
  UP_TRY(env, napi_set_named_property(env, result, "windows", array));
  return result;
}

napi_value vu_js_unmap(napi_env env, napi_callback_info info) {
  napi_value arguments[1], window;
  napi_valuetype type;
  bool ours = false;
  void* data = NULL;
  if (!up_arguments(env, info, 1, arguments)) return NULL;
  if (napi_typeof(env, arguments[0], &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, arguments[0], &mapping_tag, &ours) != napi_ok || !ours ||
      napi_unwrap(env, arguments[0], &data) != napi_ok) {
    return up_throw_type(env, "expected a mapping of this addon");
  }
  struct mapping* mapping = data;
  for (size_t i = 0; i < mapping->count; i++) {
    if (!mapping->windows[i]) continue;
    UP_TRY(env, napi_get_reference_value(env, mapping->windows[i], &window));
    /* A buffer that stays attached must keep its memory. None here is ever refused, for they are all external. */
    if (window) UP_TRY(env, napi_detach_arraybuffer(env, window));
    UP_TRY(env, napi_delete_reference(env, mapping->windows[i]));
    mapping->windows[i] = NULL;
  }
  release_memory(mapping);
  return NULL;
}
