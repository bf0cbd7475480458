;; Starts with 90 MiB, split over three modules of 30 MiB each.
;; Put into a quiet plugin, and instantiated after it.
(component
  (core module $one (memory 480))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
  (core instance (instantiate $one))
)
