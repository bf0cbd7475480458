;; WASI 0.1 for plugins whose toolchain can't do without it: Go's, and C's with a libc. It is put into the component when
;; the host encodes a core module, and asks the host for nothing: no file, variable, argument or socket is there, what is
;; printed is swallowed, and time and randomness are the event's.
;;
;; The usual adapter calls the host's clock, which traps where Go's garbage collector reads it inside `cabi_realloc`: a
;; component may not be left from there. Here nothing ever leaves the component.
;;
;; Addresses are the plugin's own, so a bad one traps the plugin. The shapes are those of WASI's witx files; the numbers
;; returned are its errnos.
(module
  (import "env" "memory" (memory 0))

  ;; Nanoseconds since 1970 at which the event happened, and those slept since.
  (global $wall (mut i64) (i64.const 0))
  ;; Nanoseconds of a clock that only ever goes on: by what is slept, and by a microsecond each time it is read, so that
  ;; a loop that waits for it ends.
  (global $monotonic (mut i64) (i64.const 0))
  ;; The state of SplitMix64.
  (global $random (mut i64) (i64.const 0))

  ;; What an SDK calls before the plugin's function: when the event happened, in nanoseconds since 1970, and a seed.
  (func (export "wirehook_event_begin") (param $wall i64) (param $seed i64)
    (global.set $wall (local.get $wall))
    (global.set $random (local.get $seed)))

  ;; Go asks for this around each allocation; here no clock leaves the component, so there is nothing to pause.
  (func (export "adapter_monotonic_clock_set_paused") (param i32))

  ;; Time

  (func $clock (param $id i32) (result i64)
    (if (result i64) (local.get $id)
      (then
        (global.set $monotonic (i64.add (global.get $monotonic) (i64.const 1000)))
        (global.get $monotonic))
      (else (global.get $wall))))

  (func $sleep (param $nanoseconds i64)
    (global.set $wall (i64.add (global.get $wall) (local.get $nanoseconds)))
    (global.set $monotonic (i64.add (global.get $monotonic) (local.get $nanoseconds))))

  (func (export "clock_res_get") (param i32 i32) (result i32)
    (i64.store (local.get 1) (i64.const 1000))
    (i32.const 0))

  (func (export "clock_time_get") (param i32 i64 i32) (result i32)
    (i64.store (local.get 2) (call $clock (local.get 0)))
    (i32.const 0))

  ;; A sleep is over at once, and time has moved by it. A subscription has 48 bytes, an event 32.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $events i32) (result i32)
    (local $left i32)
    (local $until i64)
    (if (i32.eqz (local.get $count)) (then (return (i32.const 28)))) ;; inval
    (local.set $left (local.get $count))
    (loop $next
      (i64.store (local.get $out) (i64.load (local.get $in)))
      (i32.store8 offset=10 (local.get $out) (i32.load8_u offset=8 (local.get $in)))
      (i64.store offset=16 (local.get $out) (i64.const 0))
      (i64.store offset=24 (local.get $out) (i64.const 0))
      (if (i32.load8_u offset=8 (local.get $in))
        (then (i32.store16 offset=8 (local.get $out) (i32.const 8))) ;; badf: there is no file to wait for
        (else
          (i32.store16 offset=8 (local.get $out) (i32.const 0))
          (local.set $until (i64.load offset=24 (local.get $in)))
          (if (i32.and (i32.load16_u offset=40 (local.get $in)) (i32.const 1)) ;; an absolute time
            (then
              (local.set $until (i64.sub (local.get $until) (call $clock (i32.load offset=16 (local.get $in)))))))
          (if (i64.gt_s (local.get $until) (i64.const 0)) (then (call $sleep (local.get $until))))))
      (local.set $in (i32.add (local.get $in) (i32.const 48)))
      (local.set $out (i32.add (local.get $out) (i32.const 32)))
      (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.store (local.get $events) (local.get $count))
    (i32.const 0))

  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; Randomness

  (func $next_random (result i64)
    (local $z i64)
    (global.set $random (i64.add (global.get $random) (i64.const 0x9e3779b97f4a7c15)))
    (local.set $z (global.get $random))
    (local.set $z
      (i64.mul
        (i64.xor (local.get $z) (i64.shr_u (local.get $z) (i64.const 30)))
        (i64.const 0xbf58476d1ce4e5b9)))
    (local.set $z
      (i64.mul
        (i64.xor (local.get $z) (i64.shr_u (local.get $z) (i64.const 27)))
        (i64.const 0x94d049bb133111eb)))
    (i64.xor (local.get $z) (i64.shr_u (local.get $z) (i64.const 31))))

  (func (export "random_get") (param $to i32) (param $bytes i32) (result i32)
    (local $value i64)
    (local $left i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $bytes)))
        (if (i32.eqz (local.get $left))
          (then
            (local.set $value (call $next_random))
            (local.set $left (i32.const 8))))
        (i64.store8 (local.get $to) (local.get $value))
        (local.set $value (i64.shr_u (local.get $value) (i64.const 8)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (local.set $bytes (i32.sub (local.get $bytes) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; The process: an exit is a trap, as a plugin returns instead.

  (func $proc_exit (export "proc_exit") (param i32) unreachable)
  (func (export "proc_raise") (param i32) (result i32) unreachable)

  (func $none (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func (export "args_sizes_get") (param i32 i32) (result i32) (call $none (local.get 0) (local.get 1)))
  (func (export "environ_sizes_get") (param i32 i32) (result i32) (call $none (local.get 0) (local.get 1)))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  ;; Standard input is empty, standard output and error swallow everything; no other file is open, and none can be.

  (func $stdio (param $fd i32) (result i32)
    (if (result i32) (i32.lt_u (local.get $fd) (i32.const 3)) (then (i32.const 0)) (else (i32.const 8)))) ;; badf

  (func (export "fd_close") (param i32) (result i32) (call $stdio (local.get 0)))
  (func (export "fd_datasync") (param i32) (result i32) (call $stdio (local.get 0)))
  (func (export "fd_sync") (param i32) (result i32) (call $stdio (local.get 0)))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (call $stdio (local.get 0)))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (call $stdio (local.get 0)))

  ;; Of standard input, output and error: a terminal's kind, no flags, reading and writing.
  (func (export "fd_fdstat_get") (param $fd i32) (param $to i32) (result i32)
    (if (call $stdio (local.get $fd)) (then (return (i32.const 8))))
    (i64.store (local.get $to) (i64.const 2))
    (i64.store offset=8 (local.get $to) (i64.const 0x42))
    (i64.store offset=16 (local.get $to) (i64.const 0))
    (i32.const 0))

  (func (export "fd_filestat_get") (param $fd i32) (param $to i32) (result i32)
    (if (call $stdio (local.get $fd)) (then (return (i32.const 8))))
    (memory.fill (local.get $to) (i32.const 0) (i32.const 64))
    (i32.store8 offset=16 (local.get $to) (i32.const 2))
    (i64.store offset=24 (local.get $to) (i64.const 1))
    (i32.const 0))

  (func (export "fd_read") (param $fd i32) (param i32 i32) (param $read i32) (result i32)
    (if (call $stdio (local.get $fd)) (then (return (i32.const 8))))
    (i32.store (local.get $read) (i32.const 0))
    (i32.const 0))

  ;; Says of everything that it was written: a plugin that prints still works.
  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $written i32) (result i32)
    (local $bytes i32)
    (if (call $stdio (local.get $fd)) (then (return (i32.const 8))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $bytes (i32.add (local.get $bytes) (i32.load offset=4 (local.get $parts))))
        (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $bytes))
    (i32.const 0))

  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 70)) ;; spipe
  (func (export "fd_tell") (param i32 i32) (result i32) (i32.const 70))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 8)))
