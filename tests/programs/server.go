// Go's own HTTP server, as its documentation starts it.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, "hello") })
	panic(http.ListenAndServe(":"+os.Args[1], nil))
}
