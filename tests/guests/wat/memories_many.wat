;; Has nine memories, one in each of nine modules, with the quiet plugin's own.
;; Put into a quiet plugin, and instantiated after it.
(component
  (core module $one (memory 1))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
)
