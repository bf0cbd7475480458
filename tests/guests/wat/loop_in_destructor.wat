;; Never ends the destructor of a resource that it drops as it starts.
;; Put into a quiet plugin, and instantiated after it.
(component
  (core module $destructor (func (export "drop") (param i32) (loop (br 0))))
  (core instance $destructor (instantiate $destructor))
  (type $resource (resource (rep i32) (dtor (core func $destructor "drop"))))
  (core func $new (canon resource.new $resource))
  (core func $drop (canon resource.drop $resource))
  (core module $dropping
    (import "host" "new" (func $new (param i32) (result i32)))
    (import "host" "drop" (func $drop (param i32)))
    (func $start (call $drop (call $new (i32.const 1))))
    (start $start))
  (core instance (instantiate $dropping
    (with "host" (instance (export "new" (func $new)) (export "drop" (func $drop))))))
)
