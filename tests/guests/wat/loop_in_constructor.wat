;; Never ends the start function of one of its modules.
;; Put into a quiet plugin, and instantiated after it.
(component
  (core module $looping (func $start (loop (br 0))) (start $start))
  (core instance (instantiate $looping))
)
