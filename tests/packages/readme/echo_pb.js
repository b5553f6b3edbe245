// Stands in for what buf generates: `service Echo { rpc Say(StringValue) returns (StringValue); }`.
import { create, createFileRegistry } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema, file_google_protobuf_wrappers } from '@bufbuild/protobuf/wkt'

const type = '.google.protobuf.StringValue'
const file = create(FileDescriptorProtoSchema, {
  name: 'echo.proto',
  package: 'test',
  syntax: 'proto3',
  dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'Echo', method: [{ name: 'Say', inputType: type, outputType: type }] }],
})

export const Echo = createFileRegistry(file, () => file_google_protobuf_wrappers).getService('test.Echo')
