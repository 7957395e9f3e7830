/* kv: a replicated key-value server that Redis clients talk to. */
#include "server.h"

int main(int argument_count, char **arguments) {
    struct options options;
    int code = 2;
    if (options_parse(&options, argument_count, arguments)) {
        code = server_run(&options);
    } else {
        options_print_usage();
    }
    options_free(&options);
    return code;
}
