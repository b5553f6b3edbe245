/*
 * N-API in the shape every addon here uses it: arguments are checked before anything happens, a bad one is a TypeError, and a
 * failed system call is an Error that looks like Node's own (code, errno, syscall).
 *
 * Convention: a function that returns bool or a pointer has left an exception pending when it returns false or NULL. A callback
 * that JavaScript calls returns NULL both for "exception pending" and for undefined.
 */
#ifndef UPCALL_NATIVE_JS_H
#define UPCALL_NATIVE_JS_H

#define NAPI_VERSION 8
#include <node_api.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UP_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Leaves the function with NULL and an exception pending if an N-API call failed. */
#define UP_TRY(env, call)                                                                                                        \
  do {                                                                                                                           \
    if ((call) != napi_ok) return up_throw_napi(env);                                                                            \
  } while (0)

struct up_function {
  const char* name;
  napi_callback call;
};

struct up_number {
  const char* name;
  int value;
};

/* Throws what N-API itself has to say about its last failure, unless an exception is pending already. Returns NULL. */
napi_value up_throw_napi(napi_env env);

/* Throws a TypeError with code ERR_INVALID_ARG_TYPE. Returns NULL. */
napi_value up_throw_type(napi_env env, const char* format, ...) __attribute__((format(printf, 2, 3)));

/* Throws `<syscall> ECONNREFUSED: connection refused` with code, errno (negative, as everywhere in Node) and syscall. `error` is
 * a positive errno. Returns NULL. */
napi_value up_throw_errno(napi_env env, int error, const char* syscall);

/* After a system call that does not block: undefined where errno says that it would have had to wait, else up_throw_errno. */
napi_value up_throw_unless_again(napi_env env, const char* syscall);

/* Reports what a callback threw as an uncaught exception. Termination (worker.terminate()) shows up as a failed call without an
 * exception, or with undefined: there is no callback left to tell. */
void up_report_exception(napi_env env);

/* Reads the arguments of a callback; fewer than `count` is a TypeError, more are ignored. */
bool up_arguments(napi_env env, napi_callback_info info, size_t count, napi_value* arguments);

/* A whole number within [min, max]. NaN, fractions and numeric strings are refused. */
bool up_integer(napi_env env, napi_value value, const char* name, int64_t min, int64_t max, int64_t* out);

bool up_callback(napi_env env, napi_value value, const char* name);

/* Whether it is a Uint8Array (a Buffer is one), and its memory, for as long as JavaScript does not run. Throws nothing. */
bool up_is_bytes(napi_env env, napi_value value, void** data, size_t* length);

/* The same, with a TypeError if it is not. It may be empty. */
bool up_memory(napi_env env, napi_value value, const char* name, void** data, size_t* length);

/* Copies a Uint8Array of min to max bytes into `into`. */
bool up_bytes(napi_env env, napi_value value, const char* name, void* into, size_t min, size_t max, size_t* length);

/* A new Uint8Array with a copy of the bytes, or NULL. */
napi_value up_new_bytes(napi_env env, const void* bytes, size_t length);

napi_value up_new_number(napi_env env, double value);

/* Puts functions on the module's exports. */
bool up_export(napi_env env, napi_value exports, const struct up_function* functions, size_t count);

/* Puts numbers on the module's exports. */
bool up_export_numbers(napi_env env, napi_value exports, const struct up_number* numbers, size_t count);

#endif
