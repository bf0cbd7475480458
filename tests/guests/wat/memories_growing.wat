;; Grows three memories in turn until all are refused, writes to what it got, and traps.
;; Put into a quiet plugin, and instantiated after it.
(component
  (core module $one
    (memory 1)
    (func (export "grow") (result i32)
      (local $pages i32)
      (local.set $pages (memory.grow (i32.const 16)))
      (if (i32.ne (local.get $pages) (i32.const -1))
        (then (memory.fill (i32.shl (local.get $pages) (i32.const 16)) (i32.const 1) (i32.const 0x100000))))
      (local.get $pages)))
  (core instance $a (instantiate $one))
  (core instance $b (instantiate $one))
  (core instance $c (instantiate $one))
  (core module $driver
    (import "a" "grow" (func $a (result i32)))
    (import "b" "grow" (func $b (result i32)))
    (import "c" "grow" (func $c (result i32)))
    (func $start
      (loop $more
        (br_if $more (i32.ne (i32.and (i32.and (call $a) (call $b)) (call $c)) (i32.const -1))))
      (unreachable))
    (start $start))
  (core instance (instantiate $driver (with "a" (instance $a)) (with "b" (instance $b)) (with "c" (instance $c))))
)
