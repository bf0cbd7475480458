;; Returns a webhook of 1,000 headers.
(module
  (memory (export "memory") 1)
  (global $heap (mut i32) (i32.const 8192))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $bytes)))
    (local.get $at))
  (func (export "wirehook:plugin/handler@0.1.0#on-event") (param $event i32) (result i32)
    (i32.const 1024))
  ;; The result at 1024: one webhook, which is at 2048.
  (data (i32.const 1028) "\00\08\00\00\01")
  (data (i32.const 2084) "\00\80\00\00\e8\03\00\00")
)
