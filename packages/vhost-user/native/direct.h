/*
 * Bytes that go straight between a socket and guest memory.
 *
 * For JavaScript:
 *
 * readInto(descriptor, windows, pieces, count) → number: receives into `count` pieces of memory, in their order. A piece is three
 * numbers of the Uint32Array `pieces`: the index of one of `windows` (an array of Uint8Arrays), where in it the piece begins, and
 * how long it is. All of them are checked before anything is received. The result is how many bytes came; 0: the stream has
 * ended; -1: nothing there yet.
 *
 * writeFrom(descriptor, windows, pieces, count) → number: the other way. The result is how many bytes went; -1: none, the socket
 * is full.
 *
 * Neither waits, whatever the flags of the socket. Memory that has gone meanwhile (a file that was cut) is EFAULT.
 */
#ifndef UPCALL_VHOST_USER_DIRECT_H
#define UPCALL_VHOST_USER_DIRECT_H

#include "js.h"

napi_value vu_js_read_into(napi_env env, napi_callback_info info);
napi_value vu_js_write_from(napi_env env, napi_callback_info info);

#endif
