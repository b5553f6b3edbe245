-- Dissects upcall, the protocol of Dragonball's device manager, in captures of vsock (LINKTYPE_VSOCK).
-- SPDX-License-Identifier: Apache-2.0
--
-- Wireshark's own dissector of vsock has no table for the protocols on top of it. So this is a post-dissector: it reads the
-- fields of vsock, and adds a tree of its own. Messages may come in pieces, or several in one packet. What a packet completes is
-- remembered by its number in the first pass, which goes through the packets in order, and shown in any order after that.

local upcall = Proto("upcall", "Upcall")

upcall.prefs.port = Pref.uint("Port", 219, "The vsock port of the guest's upcall server")

local TYPES = {
  [0] = "CONNECT", [1] = "ADD_CPU", [2] = "DEL_CPU", [5] = "ADD_MMIO", [6] = "DEL_MMIO", [7] = "ADD_PCI", [8] = "DEL_PCI",
}
local ERRNOS = {
  [-1] = "EPERM", [-2] = "ENOENT", [-5] = "EIO", [-12] = "ENOMEM", [-14] = "EFAULT", [-16] = "EBUSY", [-17] = "EEXIST",
  [-19] = "ENODEV", [-22] = "EINVAL", [-28] = "ENOSPC", [-38] = "ENOSYS", [-110] = "ETIMEDOUT",
}
local SIZE = 1024
local HEADER = 16
local REPLY_HEADER = 20
local LONGEST_LINE = 40

local f = {
  service = ProtoField.char("upcall.service", "Service byte", base.HEX),
  handshake = ProtoField.string("upcall.handshake", "Hybrid vsock handshake"),
  magic = ProtoField.bytes("upcall.magic", "Magic and version"),
  msg_size = ProtoField.uint32("upcall.msg_size", "Size of the load"),
  type = ProtoField.uint32("upcall.type", "Type", base.DEC, TYPES),
  flags = ProtoField.uint32("upcall.flags", "Flags", base.HEX),
  result = ProtoField.int32("upcall.result", "Result"),
  errno = ProtoField.string("upcall.errno", "Errno"),
  cpu_count = ProtoField.uint8("upcall.cpu.count", "Number of vCPUs"),
  cpu_version = ProtoField.uint8("upcall.cpu.apic_version", "Version of the local APIC"),
  cpu_id = ProtoField.uint8("upcall.cpu.apic_id", "APIC id"),
  cpu_index = ProtoField.uint32("upcall.cpu.index", "vCPUs acted on (x86_64), or online (aarch64)"),
  mmio_base = ProtoField.uint64("upcall.mmio.base", "Base", base.HEX),
  mmio_size = ProtoField.uint64("upcall.mmio.size", "Size", base.HEX),
  mmio_irq = ProtoField.uint32("upcall.mmio.irq", "Interrupt line"),
  pci_bus = ProtoField.uint8("upcall.pci.bus", "Bus", base.HEX),
  pci_devfn = ProtoField.uint8("upcall.pci.devfn", "Device and function", base.HEX),
  load = ProtoField.bytes("upcall.load", "Load"),
  request_in = ProtoField.framenum("upcall.request_in", "Request in", base.NONE, frametype.REQUEST),
  reply_in = ProtoField.framenum("upcall.reply_in", "Reply in", base.NONE, frametype.RESPONSE),
  time = ProtoField.relative_time("upcall.time", "Time since the request"),
  part = ProtoField.uint32("upcall.part", "Bytes that a later packet completes"),
}
upcall.fields = f

local e = {
  magic = ProtoExpert.new("upcall.wrong_magic", "No message begins here", expert.group.MALFORMED, expert.severity.ERROR),
  size = ProtoExpert.new("upcall.wrong_size", "The size is not that of the type", expert.group.MALFORMED, expert.severity.ERROR),
  flags = ProtoExpert.new("upcall.wrong_flags", "The flags must be zero", expert.group.MALFORMED, expert.severity.ERROR),
  refused = ProtoExpert.new("upcall.refused", "The guest refused", expert.group.RESPONSE_CODE, expert.severity.WARN),
  unasked = ProtoExpert.new("upcall.unasked", "A reply that no request asked for", expert.group.SEQUENCE, expert.severity.WARN),
}
upcall.experts = { e.magic, e.size, e.flags, e.refused, e.unasked }

local src_cid, dst_cid = Field.new("vsock.src_cid"), Field.new("vsock.dst_cid")
local src_port, dst_port = Field.new("vsock.src_port"), Field.new("vsock.dst_port")
local operation, payload = Field.new("vsock.op"), Field.new("vsock.payload")

-- Streams by their ends, and what each packet has, by its number. Both are made anew for each file.
local streams, packets = {}, {}

function upcall.init()
  streams, packets = {}, {}
end

-- ByteArray reads integers by itself in later versions of Wireshark only.
local function u32(bytes, at)
  return bytes:get_index(at) + bytes:get_index(at + 1) * 0x100 + bytes:get_index(at + 2) * 0x10000 + bytes:get_index(at + 3) * 0x1000000
end

local function begins(bytes, at)
  local left = bytes:len() - at
  local magic = { 0x00, 0x01, 0x4d, 0x44 }
  for i = 0, math.min(left, 4) - 1 do
    if bytes:get_index(at + i) ~= magic[i + 1] then return false end
  end
  return left > 0
end

-- Whether a line of the handshake may begin so. A service byte may, too, until more comes.
local function begins_line(text)
  for _, word in ipairs({ "CONNECT ", "OK " }) do
    if word:sub(1, #text) == text then return true end
  end
  return text:match("^CONNECT %d+$") ~= nil or text:match("^OK %d+$") ~= nil
end

-- A line of the hybrid vsock handshake, as a proxy sees it. Returns the line and its length, or only true if more has to come.
local function handshake(bytes, at)
  local text = {}
  for i = at, math.min(bytes:len(), at + LONGEST_LINE) - 1 do
    local byte = bytes:get_index(i)
    if byte == 10 then
      local line = table.concat(text)
      if line:match("^CONNECT %d+$") or line:match("^OK %d+$") then return line, i - at + 1 end
      return nil
    end
    if byte < 32 or byte > 126 then return nil end
    text[#text + 1] = string.char(byte)
  end
  return #text < LONGEST_LINE and begins_line(table.concat(text)) or nil
end

local function stream_of(to_guest)
  local guest_cid, guest_port = dst_cid(), dst_port()
  local host_cid, host_port = src_cid(), src_port()
  if not to_guest then
    guest_cid, guest_port, host_cid, host_port = host_cid, host_port, guest_cid, guest_port
  end
  return table.concat({ tostring(guest_cid), tostring(guest_port), tostring(host_cid), tostring(host_port) }, " ")
end

-- Cuts what has arrived into pieces. Only in the first pass.
local function cut(key, to_guest, bytes, number, time)
  local stream = streams[key]
  if stream == nil then
    stream = { waiting = {}, asked = {}, service = false }
    streams[key] = stream
  end
  local rest = stream.waiting[to_guest]
  if rest ~= nil then
    rest:append(bytes)
    bytes = rest
  end
  local pieces, at, part_of = {}, 0, "message"
  local function add(piece)
    pieces[#pieces + 1] = piece
  end
  while at < bytes:len() do
    local left = bytes:len() - at
    local line, length = handshake(bytes, at)
    if line and not length then
      part_of = "line"
      break
    elseif line then
      add({ kind = "handshake", text = line, bytes = bytes:subset(at, length) })
      at = at + length
    elseif to_guest and not stream.service and not begins(bytes, at) then
      stream.service = true
      add({ kind = "service", bytes = bytes:subset(at, 1) })
      at = at + 1
    elseif left < SIZE and (begins(bytes, at) or left < 4) then
      break
    elseif left < SIZE then
      add({ kind = "garbage", bytes = bytes:subset(at, left) })
      at = bytes:len()
    else
      local message = { kind = "message", bytes = bytes:subset(at, SIZE) }
      if to_guest then
        stream.asked[#stream.asked + 1] = { number = number, time = time, message = message }
      elseif not (begins(bytes, at) and u32(bytes, at + 8) == 0) then
        local request = table.remove(stream.asked, 1)
        if request == nil then
          message.unasked = true
        else
          message.request, message.delta = request.number, time - request.time
          request.message.reply = number
        end
      end
      add(message)
      at = at + SIZE
    end
  end
  stream.waiting[to_guest] = at < bytes:len() and bytes:subset(at, bytes:len() - at) or nil
  return { pieces = pieces, part = bytes:len() - at, part_of = part_of }
end

local function is_cpu(kind) return kind == 1 or kind == 2 end
local function is_mmio(kind) return kind == 5 or kind == 6 end
local function is_pci(kind) return kind == 7 or kind == 8 end

-- Whether a size is one of the type's own. Types without a codec may have any.
local function fits(kind, size, to_guest)
  if kind == 0 then return true end
  if to_guest then
    if is_cpu(kind) then return size == 258 or size == 1 end
    if is_mmio(kind) then return size == 24 end
    if is_pci(kind) then return size == 2 end
  elseif is_cpu(kind) then
    return size == 4 or size == 0
  elseif is_mmio(kind) or is_pci(kind) then
    return size == 0
  end
  return size <= SIZE - HEADER
end

local function add_load(tree, range, kind, size)
  if is_cpu(kind) then
    local count = range(HEADER, 1):uint()
    tree:add(f.cpu_count, range(HEADER, 1))
    if size == 258 then
      tree:add(f.cpu_version, range(HEADER + 1, 1))
      for i = 0, count - 1 do
        tree:add(f.cpu_id, range(HEADER + 2 + i, 1))
      end
    end
    return string.format("%d vCPU%s", count, count == 1 and "" or "s")
  elseif is_mmio(kind) then
    tree:add_le(f.mmio_base, range(HEADER, 8))
    tree:add_le(f.mmio_size, range(HEADER + 8, 8))
    tree:add_le(f.mmio_irq, range(HEADER + 16, 4))
    local hex = function(at) return range(at, 8):le_uint64():tohex():gsub("^0+(%x)", "%1") end
    return string.format("0x%s+0x%s irq %d", hex(HEADER), hex(HEADER + 8), range(HEADER + 16, 4):le_uint())
  elseif is_pci(kind) then
    tree:add(f.pci_bus, range(HEADER, 1))
    tree:add(f.pci_devfn, range(HEADER + 1, 1))
    local devfn = range(HEADER + 1, 1):uint()
    return string.format("%02x:%02x.%d", range(HEADER, 1):uint(), math.floor(devfn / 8), devfn % 8)
  elseif size > 0 then
    tree:add(f.load, range(HEADER, math.min(size, SIZE - HEADER)))
  end
  return ""
end

local function show_message(message, to_guest, tree)
  local range = message.bytes:tvb("Upcall message")
  local kind, size = u32(message.bytes, 8), u32(message.bytes, 4)
  local name = TYPES[kind] or string.format("type %d", kind)
  local item = tree:add(upcall, range(), "Upcall " .. (to_guest and "request" or "reply") .. ": " .. name)
  local magic = item:add(f.magic, range(0, 4))
  if not begins(message.bytes, 0) then
    magic:add_proto_expert_info(e.magic)
    return "wrong magic"
  end
  local size_item = item:add_le(f.msg_size, range(4, 4))
  if not fits(kind, size, to_guest) then size_item:add_proto_expert_info(e.size) end
  item:add_le(f.type, range(8, 4))
  local flags = item:add_le(f.flags, range(12, 4))
  if u32(message.bytes, 12) ~= 0 then flags:add_proto_expert_info(e.flags) end
  if to_guest then
    local words = fits(kind, size, true) and add_load(item, range, kind, size) or ""
    if message.reply then item:add(f.reply_in, message.reply):set_generated() end
    return (name .. " " .. words):gsub(" +$", "")
  end
  local result = range(HEADER, 4):le_int()
  local result_item = item:add_le(f.result, range(HEADER, 4))
  local words = name .. " " .. tostring(result)
  if result ~= 0 then
    result_item:add_proto_expert_info(e.refused)
    if ERRNOS[result] then
      item:add(f.errno, range(HEADER, 4), ERRNOS[result])
      words = words .. " " .. ERRNOS[result]
    end
  end
  if is_cpu(kind) and size == 4 then item:add_le(f.cpu_index, range(REPLY_HEADER, 4)) end
  if message.request then
    item:add(f.request_in, message.request):set_generated()
    local seconds = math.floor(message.delta)
    local delta = NSTime.new(seconds, math.floor((message.delta - seconds) * 1e9))
    item:add(f.time, delta):set_generated()
  elseif message.unasked then
    item:add_proto_expert_info(e.unasked)
  end
  return words
end

local function show(packet, to_guest, tree, pinfo)
  local words = {}
  for _, piece in ipairs(packet.pieces) do
    if piece.kind == "message" then
      words[#words + 1] = show_message(piece, to_guest, tree)
    else
      local range = piece.bytes:tvb("Upcall " .. piece.kind)()
      if piece.kind == "handshake" then
        tree:add(upcall, range, "Upcall handshake"):add(f.handshake, range, piece.text)
        words[#words + 1] = piece.text
      elseif piece.kind == "service" then
        tree:add(upcall, range, "Upcall service"):add(f.service, range)
        words[#words + 1] = "service byte"
      else
        tree:add(upcall, range, "Not upcall"):add_proto_expert_info(e.magic)
        words[#words + 1] = "bytes of no message"
      end
    end
  end
  if packet.part > 0 then
    tree:add(f.part, packet.part):set_generated()
    words[#words + 1] = string.format("%d bytes of a %s", packet.part, packet.part_of)
  end
  if #words == 0 then return end
  pinfo.cols.protocol = "Upcall"
  pinfo.cols.info = (to_guest and "→ " or "← ") .. table.concat(words, "; ")
end

function upcall.dissector(_tvb, pinfo, tree)
  local bytes, op = payload(), operation()
  if op == nil then return end
  local port = upcall.prefs.port
  local to_guest = dst_port().value == port
  if not to_guest and src_port().value ~= port then return end
  local key = stream_of(to_guest)
  -- A new connection may have the ends of an old one.
  if op.value == 1 and not pinfo.visited and to_guest then streams[key] = nil end
  if bytes == nil then return end
  local packet = packets[pinfo.number]
  if packet == nil then
    packet = cut(key, to_guest, bytes.range:bytes(), pinfo.number, pinfo.abs_ts)
    packets[pinfo.number] = packet
  end
  show(packet, to_guest, tree, pinfo)
end

register_postdissector(upcall)
