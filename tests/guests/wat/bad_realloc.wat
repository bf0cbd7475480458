;; Has the host write the event outside its memory.
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (i32.const 0xfffffff0))
  (func (export "wirehook:plugin/handler@0.1.0#on-event") (param $event i32) (result i32)
    (i32.const 1024))
)
