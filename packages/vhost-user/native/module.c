/* The exports of upcall_vhost_user.node. Their TypeScript types are in src/native/binding.ts. */
#include "channel.h"
#include "descriptor.h"
#include "direct.h"
#include "front-end.h"
#include "mapping.h"
#include "rights.h"
#include "socket.h"

#include <uv.h>

/* Counts the changes of src/native/binding.ts, so that a stale build is told from a fitting one. */
#define API_VERSION 2

const napi_type_tag up_descriptor_tag = {0x51d0c47e9a2b4f83, 0xb3f6e1807d5c4926};

static const struct up_function functions[] = {
    {"socket", up_js_socket},   {"bind", up_js_bind},           {"listen", up_js_listen},
    {"accept", up_js_accept},   {"receive", vu_js_receive},     {"send", up_js_send},
    {"drain", vu_js_drain},     {"signal", vu_js_signal},       {"map", vu_js_map},
    {"unmap", vu_js_unmap},     {"readInto", vu_js_read_into},  {"writeFrom", vu_js_write_from},
    {"connect", vu_js_connect}, {"duplicate", up_js_duplicate}, {"memfd", vu_js_memfd},
    {"eventfd", vu_js_eventfd}, {"watch", up_js_watch},         {"unwatch", up_js_unwatch},
    {"ref", up_js_ref},         {"unref", up_js_unref},         {"close", up_js_close},
};

static const struct up_number numbers[] = {
    {"READABLE", UV_READABLE}, {"WRITABLE", UV_WRITABLE},    {"PRIORITIZED", UV_PRIORITIZED},
    {"AF_UNIX", AF_UNIX},      {"API_VERSION", API_VERSION},
};

NAPI_MODULE_INIT() {
  if (!up_export(env, exports, functions, UP_COUNT(functions))) return NULL;
  if (!up_export_numbers(env, exports, numbers, UP_COUNT(numbers))) return NULL;
  return exports;
}
