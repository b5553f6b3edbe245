/*
 * Guest memory, mapped from the descriptor that the VMM hands over.
 *
 * For JavaScript:
 *
 * map(descriptor, offset, size, step, length) → { mapping, windows: ArrayBuffer[] }: maps `size` bytes from `offset` of the file.
 * Window i begins `i * step` bytes into them and is `length` long, or to the end. A file that is shorter is refused (EINVAL):
 * touching what lies after its end would be a SIGBUS.
 *
 * unmap(mapping): detaches every window (length 0 from then on, for every view of it), then unmaps. Again is a no-op.
 *
 * V8 is told of the size by napi_create_external_arraybuffer (process.memoryUsage().external shows it), so there is nothing to
 * add with napi_adjust_external_memory. What that costs was measured on Node 20: mapping 4 or 8 GiB brings on one or two full
 * collections more than mapping none, of some milliseconds and at the time of mapping; no more of them come afterwards.
 *
 * What JavaScript forgets to unmap goes when neither the mapping nor a window can be reached any more.
 */
#ifndef UPCALL_VHOST_USER_MAPPING_H
#define UPCALL_VHOST_USER_MAPPING_H

#include "js.h"

napi_value vu_js_map(napi_env env, napi_callback_info info);
napi_value vu_js_unmap(napi_env env, napi_callback_info info);

#endif
