export { type ConnectSeqpacketOptions, connectSeqpacket, type SeqpacketOptions } from './connect.js'
export { type FrameOptions, frameMessages } from './frames.js'
export { type ListenSeqpacketOptions, listenSeqpacket, SeqpacketServer, type SeqpacketServerEvents } from './listen.js'
export { SeqpacketSocket } from './socket.js'
