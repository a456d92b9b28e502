# A stand-in for `headrace worker`, called as that is: --model MODEL --id ID --slot SLOT. The model says how it behaves.
case "$2" in
waits) exec sleep 600 ;;
stubborn)
    trap 'echo told to stop' TERM
    trap 'echo hello' USR1
    echo ready
    while :; do sleep 0.02; done
    ;;
parent)
    sleep 600 &
    echo ready
    wait
    ;;
fails)
    echo "some line"
    echo "error: no such thing"
    echo "last line"
    exit 3
    ;;
tells)
    echo "$* TMPDIR=$TMPDIR LAUNCHED_AT=$HEADRACE_LAUNCHED_AT GPUS=<$CUDA_VISIBLE_DEVICES>"
    touch "$TMPDIR/some file"
    exec sleep 600
    ;;
talks)
    while :; do echo "the same line again and again"; sleep 0.01; done
    ;;
esac
