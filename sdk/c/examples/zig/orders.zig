//! The example of FraiseQL's webhooks page in Zig, by nothing but wit/abi.md: an order that was created becomes a webhook.
const std = @import("std");

// The records of the ABI: extern structs have C's layout, which is the ABI's.
const Bytes = extern struct {
    ptr: [*]const u8,
    len: usize,
    fn of(text: []const u8) Bytes {
        return .{ .ptr = text.ptr, .len = text.len };
    }
    fn slice(self: Bytes) []const u8 {
        return self.ptr[0..self.len];
    }
};
const Option = extern struct { is_there: u8 = 0, value: Bytes = .{ .ptr = undefined, .len = 0 } };
const List = extern struct { items: usize = 0, len: usize = 0 };
const Event = extern struct {
    key: Bytes,
    subject: Bytes,
    entity_type: Bytes,
    operation: Bytes,
    entity_id: Option,
    tenant_id: Option,
    timestamp: Option,
    entity: Option,
    previous: Option,
    attributes: List,
    attempt: u32,
};
const Webhook = extern struct { endpoint: Option, key: Option, content_type: Option, headers: List, body: Bytes };
const Result = extern struct {
    is_failure: u8,
    payload: extern union {
        webhooks: List,
        failure: extern struct { is_reject: u8, text: Bytes },
    },
};
comptime {
    std.debug.assert(@sizeOf(Event) == 104 and @sizeOf(Webhook) == 52 and @sizeOf(Result) == 16);
}

var arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);
var result: Result = undefined;
var webhook: Webhook = undefined;

export fn cabi_realloc(old: ?[*]u8, old_len: usize, alignment: usize, len: usize) [*]u8 {
    _ = alignment; // 4 at most
    // An empty text too has to lie inside memory, where Zig's empty slices don't.
    const memory = arena.allocator().alignedAlloc(u8, .@"8", @max(len, 1)) catch @trap();
    if (old) |from| @memcpy(memory[0..old_len], from[0..old_len]);
    return memory.ptr;
}

fn onEvent(event: *const Event) *const Result {
    if (!std.mem.eql(u8, event.subject.slice(), "fraiseql.order.created")) return none();
    if (event.entity_id.is_there == 0) return reject("the order has no id");
    if (event.entity.is_there == 0) return reject("the event has no entity");
    const allocator = arena.allocator();
    // Numbers stay texts: an amount keeps its digits.
    const order = std.json.parseFromSliceLeaky(std.json.Value, allocator, event.entity.value.slice(), .{
        .parse_numbers = false,
    }) catch return reject("the entity is no JSON");
    if (order != .object) return reject("the event's entity is no JSON object");
    const body = std.json.Stringify.valueAlloc(allocator, .{
        .event = "order.created",
        .order_id = event.entity_id.value.slice(),
        .customer_email = order.object.get("customer_email") orelse .null,
        .total = order.object.get("total") orelse .null,
    }, .{}) catch @trap();
    webhook = .{ .endpoint = .{}, .key = .{}, .content_type = .{}, .headers = .{}, .body = Bytes.of(body) };
    result = .{ .is_failure = 0, .payload = .{ .webhooks = .{ .items = @intFromPtr(&webhook), .len = 1 } } };
    return &result;
}

fn postOnEvent(_: *const Result) callconv(.c) void {
    _ = arena.reset(.retain_capacity);
}

fn none() *const Result {
    result = .{ .is_failure = 0, .payload = .{ .webhooks = .{} } };
    return &result;
}

fn reject(text: []const u8) *const Result {
    result = .{ .is_failure = 1, .payload = .{ .failure = .{ .is_reject = 1, .text = Bytes.of(text) } } };
    return &result;
}

fn onEventExport(event: *const Event) callconv(.c) *const Result {
    return onEvent(event);
}

comptime {
    const name = "wirehook:plugin/handler@0.1.0#on-event";
    @export(&onEventExport, .{ .name = name });
    @export(&postOnEvent, .{ .name = "cabi_post_" ++ name });
}
