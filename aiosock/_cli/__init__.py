"""The command line, which nothing else imports: ``python -m aiosock``, or ``aiosock``.

From the ground up, as in the house itself:

    demo         the main job, shown step by step
    words        what is told on stderr: notices, and errors in one line each
    formats      bytes as they are shown and typed: escaped, in hex, with CRLF
    pipes        standard input and output, which never block the loop
    endpoints    what ENDPOINT and DURATION may be, and the families -4 and -6 allow
    security     TLS as the options ask for it
    netcat       connect and listen
    echo         echo
    resolve      resolve
    trace        trace
    doctor       doctor
    arguments    the options of every command, and their help
    main         runs a command; exit codes
"""
