"""Where to look: what has broken libraries like this one for years, and the tests of it.

Each case is a defect that peers have or had, with their own numbers for it where there are
any, and names the tests that fail if we have it too.
"""

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent

CASES = {
    # --- cancellation
    "recv cancelled as data arrives: python/cpython#74250 #78976, MagicStack/uvloop#169": """
        test_cancellation::test_a_call_stopped_at_any_turn_loses_nothing
        test_operations::test_cancelled_in_the_tick_of_the_data_nothing_is_lost""",
    "recv_into cancelled, and its buffer used again: python/cpython#78976": """
        test_cancellation::test_a_stopped_call_holds_and_writes_no_buffer
        test_operations::test_a_cancelled_call_never_writes_to_its_buffer_again""",
    "accept cancelled as a connection arrives: python/cpython#85489 #153761": """
        test_cancellation::test_a_call_stopped_at_any_turn_loses_nothing
        test_socket_connecting::test_a_cancelled_accept_loses_no_connection""",
    "connect cancelled, and closed: python/cpython#131728, aio-libs/aiohappyeyeballs#105": """
        test_cancellation::test_a_call_stopped_at_any_turn_loses_nothing
        test_cancellation::test_after_a_cancelled_connect_the_kernel_answers
        test_socket_connecting::test_a_cancelled_connect_can_be_closed""",
    "sendall cancelled half-way: python-trio/trio#889, agronholm/anyio#38": """
        test_cancellation::test_a_sendall_stopped_half_way_tells_what_the_peer_gets
        test_operations::test_a_call_that_waits_for_its_turn_has_sent_nothing""",
    "timeout and completion in one turn: python/cpython#86296 #81839": """
        test_cancellation::test_a_timeout_that_ends_in_the_turn_of_the_event_loses_nothing
        test_cancellation::test_data_at_the_time_limit_is_either_returned_or_kept
        test_cancellation::test_a_deadline_in_the_past_still_makes_one_attempt""",
    "getaddrinfo or create_connection cancelled: python/cpython#155934": """
        test_cancellation::test_a_cancelled_lookup_returns_at_once
        test_cancellation::test_the_loop_closes_while_a_lookup_hangs
        test_cancellation::test_create_connection_cancelled_between_addresses_leaves_no_socket
        test_race::test_a_call_cancelled_at_any_turn_leaves_nothing""",
    "TLS cancelled in mid-record: python-trio/trio#741": """
        test_tls_cancellation::test_a_call_stopped_at_any_turn_loses_nothing
        test_tls::test_a_receive_cancelled_in_mid_record_loses_nothing
        test_tls::test_the_next_call_sends_what_a_cancelled_one_left""",
    # --- several tasks on one socket
    "two readers: python/cpython#91780": """
        test_readiness::test_two_readers_are_both_served
        test_readiness::test_readers_are_served_in_the_order_of_their_coming""",
    "a reader and a writer: python/asyncio#366": """
        test_readiness::test_both_directions_at_once_through_tiny_buffers
        test_readiness::test_a_reader_who_leaves_does_not_disarm_a_writer""",
    "two senders": """
        test_readiness::test_two_long_sends_do_not_mix
        test_operations::test_two_senders_are_never_mixed""",
    "three accepts: python/cpython#91780": """
        test_readiness::test_three_accepts_get_a_connection_each""",
    "close while others wait: python-trio/trio#36 #3520, MagicStack/uvloop#100": """
        test_readiness::test_the_end_wakes_everybody
        test_readiness::test_the_end_in_the_turn_of_the_event_takes_nothing
        test_readiness::test_a_close_under_a_waiting_task_reaches_the_peer_at_once""",
    "a descriptor's number used again: python/cpython#88968 #130141, MagicStack/uvloop#61": """
        test_readiness::test_the_next_socket_with_the_number_waits_and_wakes
        test_readiness::test_a_registration_ends_before_its_descriptor
        test_driver::test_who_waited_for_a_closed_socket_takes_nothing_from_the_next_with_its_number""",
    "detach and dup while others wait: MagicStack/uvloop#61": """
        test_readiness::test_duplicates_wait_each_for_itself
        test_readiness::test_a_detached_descriptor_waits_on_in_a_new_socket""",
    "garbage collection under a wait: python/cpython#130141": """
        test_readiness::test_a_waiting_task_is_kept_alive_by_its_wait
        test_readiness::test_closing_the_loop_frees_who_waits
        test_readiness::test_an_idle_socket_closes_when_its_last_name_goes
        test_lines::test_a_socket_that_is_dropped_in_another_thread_leaves_the_loop_alone""",
    # --- peers, kernels and limits
    "a reset in every state": """
        test_peers::test_a_connection_reset_in_the_queue_is_accepted_and_then_fails
        test_peers::test_after_a_reset_recv_fails_once_and_then_the_stream_has_ended
        test_peers::test_after_a_reset_each_send_fails
        test_peers::test_a_reset_wakes_reader_and_writer
        test_peers::test_a_reset_comes_through_after_our_half_is_shut
        test_tls::test_a_reset_in_a_handshake""",
    "data, then a reset: python/cpython#75044, libuv/libuv#2643": """
        test_peers::test_data_comes_before_the_reset_that_followed_it
        test_files::test_what_came_before_a_reset_is_read_first""",
    "half a connection ends: encode/httpx#859": """
        test_peers::test_the_end_of_one_half_leaves_the_other_open
        test_peers::test_an_end_that_comes_while_a_writer_waits_is_the_readers_alone""",
    "no descriptor left in accept: python/cpython#151615, python/asyncio#78": """
        test_peers::test_accept_without_a_free_descriptor_fails_and_keeps_the_connection
        test_server::test_want_of_descriptors_is_said_once_and_waited_for
        test_server::test_a_server_out_of_descriptors_goes_on_when_it_has_some""",
    "a connection aborted before accept: python/cpython#127529": """
        test_peers::test_an_error_from_accept_is_raised_and_the_listener_serves_on
        test_server::test_connections_that_vanished_cost_nothing_else""",
    "a slow reader of much data: python/cpython#116279 #127655 #109534": """
        test_peers::test_all_of_any_buffer_goes_through_a_tiny_send_buffer
        test_peers::test_what_a_slow_reader_leaves_waiting_is_not_copied
        test_hostile::test_what_nobody_takes_waits_where_it_is_until_the_timeout""",
    "slow-loris": """
        test_peers::test_each_operation_has_the_timeout_anew
        test_peers::test_a_deadline_for_the_whole_exchange_takes_nothing_from_it
        test_peers::test_stalled_connections_do_not_delay_a_healthy_one
        test_hostile::test_who_drips_a_line_is_let_go_and_holds_up_nobody
        test_hostile::test_dawdlers_in_all_places_are_let_go_and_then_others_are_served""",
    "thousands of connections: python/cpython#27906": """
        test_peers::test_thousands_of_connections_wait_and_those_with_data_are_served
        test_peers::test_a_storm_of_connections_is_accepted_one_by_one
        test_peers::test_a_full_queue_of_connections_leaves_other_tasks_their_turns
        test_peers::test_an_idle_connection_costs_little_memory""",
    "a loop that turns for ever over a closed descriptor: eventlet/eventlet#912 #927": """
        test_readiness::test_data_that_nobody_wants_does_not_spin_the_loop
        test_readiness::test_a_registration_ends_before_its_descriptor
        test_driver::test_nobody_watches_a_socket_that_has_ended
        test_server::test_a_listener_that_its_owner_closes_is_done_with""",
    "SIGPIPE": """
        test_peers::test_a_broken_pipe_is_an_error_where_sigpipe_would_kill""",
    "connect to a full AF_UNIX queue: of asyncio, uvloop, trio, curio, tokio-rs/mio#1560": """
        test_connecting::test_with_the_queue_full_a_unix_connect_waits_for_room
        test_connecting::test_with_the_queue_full_a_unix_connect_is_late_after_its_timeout
        test_connecting::test_a_unix_connect_waits_without_spinning""",
    "connect refused, unreachable, late, repeated": """
        test_connecting::test_a_refusal_is_told_once
        test_connecting::test_an_unreachable_address_fails_at_once
        test_connecting::test_a_late_connect_ex_is_eagain_and_then_ealready
        test_connecting::test_a_blocking_socket_can_connect_after_refusals
        test_connecting::test_a_connected_socket_does_not_connect_again
        test_connecting::test_a_foreign_address_cannot_be_bound""",
    # --- datagrams and ancillary data
    "empty datagrams: of asyncio, python/cpython#113812, MagicStack/uvloop#594": """
        test_datagrams::test_empty_datagrams_are_sent_and_received
        test_datagrams::test_sending_nothing_on_a_stream_is_no_end""",
    "truncated datagrams, and memory behind the buffer: python/cpython#78798": """
        test_datagrams::test_what_does_not_fit_is_cut_off_and_gone
        test_datagrams::test_msg_trunc_gives_no_more_than_was_asked_for""",
    "a refused datagram: MagicStack/uvloop#338": """
        test_datagrams::test_a_refusal_is_told_once_by_the_next_call
        test_datagrams::test_a_refusal_wakes_who_waits_and_every_later_one_does
        test_datagrams::test_an_unconnected_socket_is_told_of_no_refusal""",
    "datagrams too long, and full queues": """
        test_datagrams::test_what_is_too_long_is_refused_at_once
        test_datagrams::test_with_the_queue_full_a_datagram_waits_for_room
        test_datagrams::test_with_the_queue_full_nothing_spins""",
    "descriptors passed and not taken: python/cpython#80931, systemd/systemd#15457": """
        test_datagrams::test_descriptors_without_room_are_closed_and_that_is_told
        test_datagrams::test_a_receive_that_cannot_tell_of_descriptors_closes_them
        test_datagrams::test_a_cancelled_recvmsg_leaves_the_descriptors_in_the_socket
        test_hostile::test_descriptors_that_nobody_asked_for_are_closed
        test_hostile::test_descriptors_that_nobody_can_have_are_lost_and_that_is_told""",
    "sendall of nothing is no datagram, of curio and gevent": """
        test_datagrams::test_empty_datagrams_are_sent_and_received
        test_datagrams::test_an_empty_datagram_wakes_each_kind_of_receive""",
    "MSG_WAITALL is short without a timeout, of gevent, eventlet and curio": """
        test_datagrams::test_waitall_waits_for_all_in_blocking_mode
        test_operations::test_msg_waitall_in_blocking_mode_waits_for_all""",
    "flags: agronholm/anyio#201, MagicStack/uvloop#561": """
        test_datagrams::test_dontwait_does_not_wait_in_blocking_mode
        test_datagrams::test_peek_waits_for_data_and_takes_none
        test_datagrams::test_an_urgent_byte_is_waited_for_in_timeout_mode
        test_datagrams::test_the_error_queue_tells_who_refused""",
    # --- the blocking face
    "Ctrl-C while waiting: MagicStack/uvloop#295 #335": """
        test_signals::test_ctrl_c_takes_nothing_and_the_next_call_gets_the_data
        test_signals::test_what_an_interrupted_sendall_tells_is_what_arrives
        test_signals::test_interruptions_at_any_moment_lose_nothing""",
    "signal handlers: MagicStack/uvloop#94": """
        test_signals::test_a_handler_that_raises_ends_the_call
        test_signals::test_a_handler_that_returns_does_not_extend_the_time
        test_signals::test_handlers_and_the_wakeup_descriptor_of_the_program_stay""",
    "fork with a loop: python/cpython#66285, gevent/gevent#957": """
        test_processes::test_a_forked_child_leaves_its_parents_loop_alone
        test_processes::test_a_parent_is_told_nothing_of_its_childs_sockets
        test_processes::test_parent_and_child_wait_for_the_same_socket""",
    'threads, "Cannot switch to a different thread": gevent/gevent#2047, eventlet/eventlet#662': """
        test_driver::test_many_threads_mix_nothing_and_leave_nothing
        test_driver::test_a_threads_loop_ends_with_it_though_an_error_remembers_it""",
    "a thread that reads, and one that writes, of gevent": """
        test_driver::test_a_reader_and_a_writer_share_a_socket
        test_tls::test_one_thread_receives_and_one_sends""",
    "close and shutdown by another thread": """
        test_driver::test_the_end_in_one_thread_wakes_another
        test_driver::test_a_shutdown_in_one_thread_ends_the_stream_in_another""",
    "settimeout by another thread": """
        test_driver::test_the_timeout_at_the_start_of_a_call_counts""",
    "blocking calls inside a running loop: django/asgiref#249 #492": """
        test_driver::test_a_call_inside_a_running_loop_blocks_and_leaves_the_loop_running
        test_driver::test_every_kind_of_call_blocks_wherever_in_a_running_loop_it_is_made""",
    "closed loops, and the interpreter's end": """
        test_driver::test_a_loop_that_somebody_closes_is_made_anew
        test_processes::test_the_interpreter_ends_in_silence_with_a_socket_used""",
    "O_NONBLOCK seen by other processes": """
        test_processes::test_a_child_process_finds_a_blocking_descriptor_blocking
        test_mode::test_a_descriptor_is_passed_on_in_its_mode""",
    # --- TLS
    "truncation: python/cpython#72002": """
        test_tls::test_a_connection_that_is_cut
        test_files::test_a_cut_connection_is_no_end_of_a_file
        test_tls_sync::test_a_cut_connection_looks_ended_unless_asked_otherwise""",
    "handshakes that stall: python/asyncio#483, python/cpython#74156": """
        test_tls::test_a_stalled_handshake_ends_with_the_timeout
        test_tls::test_a_hundred_silent_clients_hold_up_nobody
        test_server::test_a_client_that_shakes_no_hands_holds_up_nobody_and_is_let_go
        test_hostile::test_who_drips_a_handshake_is_let_go_and_holds_up_nobody""",
    "reads that write, and STARTTLS: python/cpython#142352, MagicStack/uvloop#707": """
        test_tls::test_the_peer_negotiates_anew_while_a_writer_is_stuck
        test_tls::test_post_handshake_authentication
        test_tls::test_new_keys_while_a_writer_is_stuck
        test_tls::test_close_lets_the_kernel_send_what_it_has_taken
        test_tls::test_bytes_of_the_flight_that_were_taken_before
        test_tls::test_unwrap_with_a_silent_peer
        test_tls::test_both_directions_at_once_under_tiny_buffers
        test_hostile::test_questions_for_new_keys_pile_no_answers_up_for_a_peer_who_takes_none""",
    # --- names
    "lookups that hold others up: python/cpython#112169, python/asyncio#160": """
        test_names::test_the_loop_turns_during_a_lookup
        test_names::test_numeric_addresses_do_not_wait_behind_lookups
        test_names::test_lookups_leave_the_default_executor_alone
        test_names::test_slow_lookups_take_a_bounded_number_of_threads
        test_names::test_the_timeout_of_connect_bounds_the_lookup
        test_names::test_a_stuck_lookup_does_not_hold_up_the_end_of_the_loop""",
    "what a lookup gives, in which order, and its errors": """
        test_names::test_every_lookup_gives_what_the_stdlib_gives
        test_names::test_an_overlong_label_is_no_lookup_error
        test_names::test_the_scope_in_the_address_is_kept""",
    # --- traps of a blocking face over a loop
    "a descriptor that never blocks": """
        test_mode::test_the_descriptor_blocks_while_there_is_no_timeout""",
    "what a signal handler raises is swallowed": """
        test_signals::test_a_handler_that_raises_ends_the_call""",
    "MSG_DONTWAIT waits": """
        test_operations::test_msg_dontwait_never_waits""",
    "a loop is made in a logging handler, which logs": """
        test_driver::test_no_handler_hears_that_a_loop_is_made""",
    "settimeout of a closed socket": """
        test_socket::test_a_closed_socket_stores_its_timeout_and_fails""",
    "loops of threads that are never closed": """
        test_driver::test_a_threads_loop_ends_with_it_though_an_error_remembers_it""",
    "two threads wait for one socket": """
        test_driver::test_several_threads_wait_in_one_direction
        test_driver::test_several_threads_accept""",
    "use inside a running loop": """
        test_driver::test_a_call_inside_a_running_loop_blocks_and_leaves_the_loop_running""",
    "a public method calls another": """
        test_driver::test_no_public_method_calls_another""",
    "names that clients reach for": """
        test_parity::test_every_name_of_the_stdlib_is_in_the_sync_face
        test_parity::test_the_socket_has_the_stdlibs_private_attributes_too""",
    "addresses of peers, errors of connect_ex, bytes that are bytes": """
        test_datagrams::test_an_empty_datagram_has_a_sender
        test_many_datagrams::test_each_datagram_comes_with_its_sender
        test_socket_connecting::test_a_bad_address_is_raised_in_the_name_of_the_call
        test_operations::test_received_bytes_are_bytes
        test_operations::test_msg_peek_takes_nothing""",
}


@cache
def text_of(name: str) -> str:
    return (HERE / f"{name}.py").read_text()


def test_each_case_has_its_tests() -> None:
    for case, tests in CASES.items():
        for named in tests.split():
            file, test = named.split("::")
            assert f"def {test}(" in text_of(file), (case, named)


def test_what_is_promised_against_harm_has_its_tests() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (HERE.parent / "SECURITY.md").read_text())
    assert named
    assert not [file for file in named if not (HERE.parent / file).is_file()]
