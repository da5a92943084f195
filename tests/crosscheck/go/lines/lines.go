// Package lines answers one JSON question per line of standard input with one JSON verdict per line of standard output.
package lines

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Verdict is what an implementation makes of one piece of evidence.
type Verdict struct {
	Accepted bool           `json:"accepted"`
	Reason   string         `json:"reason"`
	Facts    map[string]any `json:"facts"`
}

// Refused is the verdict for an error.
func Refused(err error) Verdict {
	return Verdict{Reason: err.Error()}
}

// Of is the verdict for an error or for none.
func Of(err error) Verdict {
	if err != nil {
		return Refused(err)
	}
	return Verdict{Accepted: true}
}

// Answer judges every line until the input ends. A panic of the library is a refusal that says so.
func Answer[Question any](judge func(Question) Verdict) {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			if failed := encoder.Encode(guarded(line, judge)); failed != nil {
				fmt.Fprintln(os.Stderr, failed)
				os.Exit(1)
			}
			out.Flush()
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func guarded[Question any](line []byte, judge func(Question) Verdict) (verdict Verdict) {
	defer func() {
		if panicked := recover(); panicked != nil {
			verdict = Verdict{Reason: fmt.Sprintf("panic: %v", panicked)}
		}
	}()
	var question Question
	if err := json.Unmarshal(line, &question); err != nil {
		return Verdict{Reason: fmt.Sprintf("question: %v", err)}
	}
	return judge(question)
}
