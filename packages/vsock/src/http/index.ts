export { VsockAgent, type VsockAgentOptions } from './agent.js'
export { type Connector, type ConnectorCallback, type ConnectorOptions, connector } from './connector.js'
export { type CreateConnection, createConnection } from './create-connection.js'
export type { AddressOf, RequestTarget } from './target.js'
