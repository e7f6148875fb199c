// A client as Java's library makes it by default: it offers HTTP/2 with every request.
//
// Arguments: the URL of the server, and the token. Each line of standard input is a request: method,
// path and body, with tabs between them. Each line of standard output is an answer: status and body.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

public class JavaClient {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        var requests = new BufferedReader(new InputStreamReader(System.in));
        for (var line = requests.readLine(); line != null; line = requests.readLine()) {
            var parts = line.split("\t", -1);
            var body = parts[2].isEmpty()
                ? BodyPublishers.noBody()
                : BodyPublishers.ofString(parts[2]);
            var request = HttpRequest.newBuilder(URI.create(arguments[0] + parts[1]))
                .timeout(Duration.ofSeconds(20))
                .header("Authorization", "Bearer " + arguments[1])
                .header("Content-Type", "application/json")
                .method(parts[0], body)
                .build();
            var answer = client.send(request, BodyHandlers.ofString());
            System.out.println(answer.statusCode() + "\t" + answer.body());
        }
    }
}
