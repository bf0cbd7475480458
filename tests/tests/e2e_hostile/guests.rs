//! What each hostile guest must come to.

/// What an event comes to in a guest that loads: the name, the reason, and what the dead letter says.
pub(crate) const DEAD: &[(&str, &str, &str)] = &[
    // Loops, in every place where a guest's code can run.
    ("loop_forever", "plugin_deadline", "its deadline is 100 ms"),
    ("loop_in_start", "plugin_deadline", "its deadline is 100 ms"),
    ("loop_in_initialize", "plugin_deadline", "its deadline is 100 ms"),
    ("loop_in_constructor", "plugin_deadline", "its deadline is 100 ms"),
    ("loop_in_destructor", "plugin_deadline", "its deadline is 100 ms"),
    ("loop_in_realloc", "plugin_deadline", "its deadline is 100 ms"),
    ("loop_in_post_return", "plugin_deadline", "its deadline is 100 ms"),
    ("sleeper", "plugin_deadline", "10 times its deadline"),
    // Depth.
    ("stack_overflow", "plugin_trap", "call stack exhausted"),
    ("recursion_in_start", "plugin_trap", "call stack exhausted"),
    ("recursion_in_realloc", "plugin_trap", "call stack exhausted"),
    // Memory and tables.
    ("memory_hog", "plugin_memory", "its limit is 67108864"),
    ("memory_in_start", "plugin_memory", "its limit is 67108864"),
    ("memories_split", "plugin_memory", "its limit is 67108864"),
    ("memories_growing", "plugin_memory", "its limit is 67108864"),
    ("table_bomb", "plugin_memory", "a table of"),
    // Traps and exits.
    ("trap", "plugin_trap", "unreachable"),
    ("trap_in_start", "plugin_trap", "unreachable"),
    ("panics", "plugin_trap", "unreachable"),
    ("proc_exit", "plugin_trap", "unreachable"),
    ("exits", "plugin_trap", "called exit(0)"),
    // What crosses the boundary.
    ("bad_pointer", "plugin_trap", "pointer"),
    ("bad_list", "plugin_trap", "pointer"),
    ("bad_pair", "plugin_trap", "out of bounds"),
    ("bad_realloc", "plugin_trap", "realloc"),
    ("bad_alignment", "plugin_trap", "aligned"),
    ("bad_discriminant", "plugin_trap", "discriminant"),
    ("bad_utf8", "plugin_trap", "utf-8"),
    ("huge_list", "plugin_output", "handed to the host at once"),
    ("output_huge", "plugin_output", "handed to the host at once"),
    ("output_flood", "plugin_output", "handed to the host at once"),
    ("header_flood", "plugin_output", "1000 headers in webhook 0"),
    ("handle_flood", "plugin_trap", "handle"),
    ("reserved_header", "header_reserved", "x-signature"),
    ("header_injection", "plugin_output", "header"),
    ("crlf_in_header_name", "plugin_output", "header"),
    ("crlf_in_content_type", "plugin_output", "`content-type`"),
    ("crlf_in_endpoint", "endpoint_unknown", "orders"),
];

/// Guests in text that do not load, and why.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("memory_declared", "starts with a memory of 131072000 bytes"),
    ("memory_over_slot", "does not fit into a sandbox"),
    ("memory_of_64_bits", "memory64"),
    ("memories_in_one_module", "memories"),
    ("memories_many", "memories"),
    ("table_declared", "table"),
    ("tables_in_one_module", "tables"),
    ("instances_many", "instances"),
    ("handler_of_other_type", "on-event"),
];

/// Files that are no plugins, and why.
pub(crate) const MALFORMED: &[(&str, &[u8], &str)] = &[
    ("empty", b"", "not whole"),
    ("text", b"let me in", "is text"),
    ("machine_code", b"\x7fELF\x02\x01\x01\0 and what wasmtime compiles to", "native ELF binary"),
    ("gzipped", b"\x1f\x8b\x08\0\0\0\0\0", "looks gzipped"),
    ("other_version", b"\0asm\x07\0\0\0", "an encoding this host does not know"),
    ("no_sections", b"\0asm\x01\0\0\0", "does not export"),
    ("garbage", b"\0asm\x01\0\0\0\x01\x04\xff\xff\xff\xff", "not valid WebAssembly"),
    ("garbage_component", b"\0asm\x0d\0\x01\0\x04\x03\xff\xff\xff", "not valid WebAssembly"),
    ("long_section", b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f", "not whole"),
];
