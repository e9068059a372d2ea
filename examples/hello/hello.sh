# Greets the name it reads on stdin. What goes to stdout is the answer, what goes to stderr is the call's log.
name=$(cat)
echo "greeting ${name:-World}" >&2
echo "Hello ${name:-World}!"
