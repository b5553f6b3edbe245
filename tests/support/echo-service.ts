import type { handleBidiStreamingCall, handleUnaryCall, MethodDefinition } from '@grpc/grpc-js'

// A gRPC service for @grpc/grpc-js without protobuf: its messages are UTF-8 text.

const serialize = (text: string) => Buffer.from(text)
const deserialize = (bytes: Buffer) => bytes.toString()

function method(path: string, streams: boolean): MethodDefinition<string, string> {
  return {
    path,
    requestStream: streams,
    responseStream: streams,
    requestSerialize: serialize,
    requestDeserialize: deserialize,
    responseSerialize: serialize,
    responseDeserialize: deserialize,
  }
}

export const echoService = { say: method('/test.Echo/Say', false), chat: method('/test.Echo/Chat', true) }

const say: handleUnaryCall<string, string> = (call, callback) => callback(null, `you said ${call.request}`)
const chat: handleBidiStreamingCall<string, string> = (call) => {
  call.on('data', (text: string) => call.write(text.toUpperCase())).on('end', () => call.end())
}
export const echoHandlers = { say, chat }
