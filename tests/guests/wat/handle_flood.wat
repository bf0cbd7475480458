;; Makes handles of its own resource without end.
;; Put into a quiet plugin, and instantiated after it.
(component
  (type $resource (resource (rep i32)))
  (core func $new (canon resource.new $resource))
  (core module $flooding
    (import "host" "new" (func $new (param i32) (result i32)))
    (func $start (loop (drop (call $new (i32.const 1))) (br 0)))
    (start $start))
  (core instance (instantiate $flooding (with "host" (instance (export "new" (func $new))))))
)
