#include "js.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

napi_value up_throw_napi(napi_env env) {
  const napi_extended_error_info* info = NULL;
  bool pending = false;
  napi_get_last_error_info(env, &info);
  const char* message = info && info->error_message ? info->error_message : "N-API call failed";
  if (napi_is_exception_pending(env, &pending) == napi_ok && !pending) napi_throw_error(env, "ERR_NAPI", message);
  return NULL;
}

napi_value up_throw_type(napi_env env, const char* format, ...) {
  char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
  return NULL;
}

napi_value up_throw_errno(napi_env env, int error, const char* syscall) {
  char name[64], reason[128], text[256];
  napi_value code, message, number, call, thrown;
  uv_err_name_r(-error, name, sizeof(name));
  uv_strerror_r(-error, reason, sizeof(reason));
  snprintf(text, sizeof(text), "%s %s: %s", syscall, name, reason);
  UP_TRY(env, napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code));
  UP_TRY(env, napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message));
  UP_TRY(env, napi_create_error(env, code, message, &thrown));
  UP_TRY(env, napi_create_int32(env, -error, &number));
  UP_TRY(env, napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &call));
  UP_TRY(env, napi_set_named_property(env, thrown, "errno", number));
  UP_TRY(env, napi_set_named_property(env, thrown, "syscall", call));
  UP_TRY(env, napi_throw(env, thrown));
  return NULL;
}

napi_value up_throw_unless_again(napi_env env, const char* syscall) {
  return errno == EAGAIN || errno == EWOULDBLOCK ? NULL : up_throw_errno(env, errno, syscall);
}

void up_report_exception(napi_env env) {
  bool pending = false;
  napi_value thrown;
  napi_valuetype type;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending) return;
  if (napi_get_and_clear_last_exception(env, &thrown) != napi_ok) return;
  if (napi_typeof(env, thrown, &type) == napi_ok && type != napi_undefined) napi_fatal_exception(env, thrown);
}

bool up_arguments(napi_env env, napi_callback_info info, size_t count, napi_value* arguments) {
  size_t given = count;
  if (napi_get_cb_info(env, info, &given, arguments, NULL, NULL) != napi_ok) {
    up_throw_napi(env);
    return false;
  }
  if (given >= count) return true;
  up_throw_type(env, "expected %zu arguments, got %zu", count, given);
  return false;
}

bool up_integer(napi_env env, napi_value value, const char* name, int64_t min, int64_t max, int64_t* out) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= (double)min && number <= (double)max) ||
      number != (double)(int64_t)number) {
    up_throw_type(env, "%s must be a whole number from %lld to %lld", name, (long long)min, (long long)max);
    return false;
  }
  *out = (int64_t)number;
  return true;
}

bool up_callback(napi_env env, napi_value value, const char* name) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) == napi_ok && type == napi_function) return true;
  up_throw_type(env, "%s must be a function", name);
  return false;
}

bool up_is_bytes(napi_env env, napi_value value, void** data, size_t* length) {
  bool typed = false;
  napi_typedarray_type type;
  return napi_is_typedarray(env, value, &typed) == napi_ok && typed &&
         napi_get_typedarray_info(env, value, &type, length, data, NULL, NULL) == napi_ok && type == napi_uint8_array;
}

bool up_memory(napi_env env, napi_value value, const char* name, void** data, size_t* length) {
  if (up_is_bytes(env, value, data, length)) return true;
  up_throw_type(env, "%s must be a Uint8Array", name);
  return false;
}

bool up_bytes(napi_env env, napi_value value, const char* name, void* into, size_t min, size_t max, size_t* length) {
  void* data;
  if (!up_memory(env, value, name, &data, length)) return false;
  if (*length < min || *length > max) {
    up_throw_type(env, "%s must have %zu to %zu bytes, has %zu", name, min, max, *length);
    return false;
  }
  if (*length > 0) memcpy(into, data, *length);
  return true;
}

napi_value up_new_bytes(napi_env env, const void* bytes, size_t length) {
  napi_value buffer, array;
  void* data = NULL;
  UP_TRY(env, napi_create_arraybuffer(env, length, &data, &buffer));
  if (length > 0) memcpy(data, bytes, length);
  UP_TRY(env, napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &array));
  return array;
}

napi_value up_new_number(napi_env env, double value) {
  napi_value number;
  UP_TRY(env, napi_create_double(env, value, &number));
  return number;
}

bool up_export(napi_env env, napi_value exports, const struct up_function* functions, size_t count) {
  for (size_t i = 0; i < count; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok) {
      up_throw_napi(env);
      return false;
    }
  }
  return true;
}

bool up_export_numbers(napi_env env, napi_value exports, const struct up_number* numbers, size_t count) {
  for (size_t i = 0; i < count; i++) {
    napi_value number;
    if (napi_create_int32(env, numbers[i].value, &number) != napi_ok ||
        napi_set_named_property(env, exports, numbers[i].name, number) != napi_ok) {
      up_throw_napi(env);
      return false;
    }
  }
  return true;
}
