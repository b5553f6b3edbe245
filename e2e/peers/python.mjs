// Python's socket.AF_VSOCK in a guest.
export const tools = []

export async function run(_checks, _image, _options) {}
