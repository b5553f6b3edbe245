// Go: firecracker-go-sdk and mdlayher/vsock against ours.
export const tools = ['go']

export async function run(_checks, _image, _options) {}
