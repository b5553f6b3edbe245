/**
 * Looks into upcall and vsock: the messages of a conversation with every byte explained, round-trip times, and pcap files that Wireshark reads.
 *
 * @packageDocumentation
 */

export {}
